"""Starting and stopping the server: in the foreground, on taken ports, without a model."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from ram_triton.errors import ServerError
from ram_triton.processes import children, kill_all_with
from ram_triton.repository.layout import MODELS, STAGING_PREFIX
from ram_triton.server import LOOPBACK, Ports, TritonServer
from ram_triton.server.folder import PREFIX
from support import PATIENCE
from support.pipeline import copy_models

ROOT = Path(__file__).parents[2]


READY = "Ctrl-C stops the server.\n"


def read_until_ready(process):
    """Return the lines before the last one of a start."""
    output = []
    for line in process.stdout:
        if line == READY:
            return output
        output.append(line)
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def repository(repository, tmp_path_factory):
    """Of `ram` alone, which starts in two thirds of the time."""
    root = tmp_path_factory.mktemp("ram_alone")
    for model in ("ram", *MODELS["ram"].steps):
        copy_models(repository / model, root / model)
    return root


@pytest.fixture
def serve(tmp_path):
    """Start `ram-triton serve`, its log in a file of the test's own."""

    def start(repository, ports, *options):
        arguments = [f"--{kind}-port={number}" for kind, number in vars(ports).items()]
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "ram_triton", "serve", "--repository", repository),
                *(
                    *arguments,
                    "--log",
                    tmp_path / "triton.log",
                    "--key-file",
                    tmp_path / "key",
                    *options,
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    return start


@pytest.mark.parametrize(
    ("stop", "options"),
    [(signal.SIGINT, []), (signal.SIGTERM, ["--verbose"]), (signal.SIGHUP, [])],
)
def test_serve_runs_in_the_foreground_until_it_is_told_to_stop(
    serve, repository, stop, options, tmp_path
):
    ports = Ports.free()
    process = serve(repository, ports, *options)
    try:
        output = read_until_ready(process)
        url = f"http://{LOOPBACK}:{ports.http}/v2/models/ram/ready"
        assert urllib.request.urlopen(url).status == 200
        (example,) = (line[5:] for line in output if line.startswith("Try: "))
        answer = subprocess.run(example, shell=True, capture_output=True, text=True, cwd=ROOT)
        process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (0, "")
    assert stdout.endswith("ram-triton serve: stopped\n")
    assert ports.taken() == []
    log = tmp_path / "triton.log"
    count = len(list(repository.glob("*/config.pbtxt")))
    assert output[:2] == [f"Loading {count} models of {repository}\n", f"Triton's log: {log}\n"]
    assert any(line.startswith(f"Ready: gRPC {LOOPBACK}:{ports.grpc}, HTTP") for line in output)
    assert "tag " in answer.stdout, answer.stderr
    assert "successfully loaded 'ram_encoder'" in log.read_text()
    shown = "".join(output) + stdout
    assert ("successfully loaded 'ram_encoder'" in shown) == bool(options)


def test_any_path_of_a_repository_works(repository, tmp_path, monkeypatch):
    """Triton's Python backend hands paths to a shell: spaces and quotes made its models die."""
    odd = tmp_path / "a b'c \"d $e 标签"
    (odd / "temporary").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(odd / "temporary"))
    copy_models(repository, odd / "copy")
    log = []
    with TritonServer(odd / "copy", log=log.append):
        pass
    assert not [line for line in log if "ram-triton-" in line and "/models" in line]


def test_a_python_model_whose_process_dies_fails_the_start_at_once(copied, tmp_path):
    code = copied / "ram_postprocess" / "1" / "model.py"
    code.write_text(f"import os\n\nos.abort()\n{code.read_text()}")
    log = tmp_path / "triton.log"
    with pytest.raises(ServerError, match=f"the process of .*ram_postprocess.* died; log: {log}"):
        TritonServer(copied, log_file=log).__enter__()
    assert "loading: ram_postprocess" in log.read_text()


def test_two_servers_that_start_at_the_same_time_do_not_share_a_port():
    """The first listens only after its models are loaded, which the second must not wait for."""
    ports = Ports.free()
    with ports.reserve():
        others = Ports(Ports.free().http, ports.grpc, Ports.free().metrics)
        with pytest.raises(ServerError, match=f"port {ports.grpc} is taken: .* GRPC_PORT="):
            others.reserve()
    others.reserve().close()


def test_ports_that_another_server_has_reserved_are_not_offered(monkeypatch):
    reserved, others = Ports.free(), Ports.free()
    numbers = [*vars(reserved).values(), *vars(others).values()]
    monkeypatch.setattr("ram_triton.server.ports._numbers", iter(numbers))
    with reserved.reserve():
        offered = set(vars(Ports.free()).values())
    assert not offered & {reserved.http, reserved.grpc, reserved.metrics}


def test_the_server_ends_when_its_launcher_is_killed(serve, repository):
    process = serve(repository, Ports.free())
    try:
        read_until_ready(process)
        (server,) = children(process.pid)
        ended = os.pidfd_open(server)
    finally:
        process.kill()
        process.communicate()
    readable, _, _ = select.select([ended], [], [], PATIENCE)
    os.close(ended)
    assert readable, "the server outlived its launcher"


def test_the_server_leaves_no_process_shared_memory_or_file_behind(
    repository, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with TritonServer(repository) as server:
        group = server.process_group
        assert list(tmp_path.iterdir())
        assert server.regions
    with pytest.raises(ProcessLookupError):
        for _ in range(6000):  # one that has been killed may still have to be reaped
            os.killpg(group, 0)
            time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []
    assert server.regions == []


def test_a_taken_port_is_named_and_nothing_is_started(serve, repository):
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        ports = Ports(port, *list(vars(Ports.free()).values())[1:])
        process = serve(repository, ports)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr == (
        f"ram-triton serve: port {port} is taken: stop what listens there, or choose another by "
        "--http-port (make: HTTP_PORT=)\n"
    )


def test_a_repository_without_a_model_is_refused_with_what_to_do(serve, tmp_path):
    process = serve(tmp_path, Ports.free())
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert (
        stderr == f"ram-triton serve: {tmp_path}: contains no model: "
        "run 'make model' or 'make demo' first\n"
    )


def test_a_model_that_does_not_load_fails_the_start_at_once_with_its_reason(copied):
    (copied / "ram_postprocess" / "1" / "vocabulary.json").write_text("no JSON")
    with pytest.raises(ServerError, match=r"failed to load 'ram_postprocess'.*JSONDecodeError"):
        TritonServer(copied).__enter__()


def test_what_a_killed_build_left_does_not_disturb_the_server(copied):
    (copied / "ram" / f"{STAGING_PREFIX}killed" / "ram_encoder" / "1").mkdir(parents=True)
    with TritonServer(copied):
        pass


def test_a_graph_that_was_not_built_is_named(copied):
    (copied / "ram_head" / "1" / "model.onnx").unlink()
    with pytest.raises(ServerError, match=r"model.onnx is missing: run 'make model' first"):
        TritonServer(copied).__enter__()


def test_int8_that_the_last_build_left_out_is_told_with_both_remedies(copied):
    config = copied / "ram_head" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("model.onnx", "int8.xml", 1))
    told = r"int8.xml is missing: run 'make model' with INT8=DIR, or name model.onnx in configs/cpu"
    with pytest.raises(ServerError, match=told):
        TritonServer(copied).__enter__()


def test_a_damaged_manifest_is_reported_in_a_line(serve, tmp_path):
    manifest = tmp_path / "ram" / "1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{")
    process = serve(tmp_path, Ports.free())
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr == f"ram-triton serve: {manifest}: is damaged: run 'make model' again\n"


def loads_its_first_model(log, folder):
    return log.exists() and "loading: ram" in log.read_text()


def has_shared_memory(log, folder):
    return any(any(Path("/dev/shm").glob(f"{path.name}-*")) for path in folder.glob(f"{PREFIX}*"))


def has_a_folder(log, folder):
    return any(folder.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("happens", [has_a_folder, loads_its_first_model, has_shared_memory])
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_at_any_moment_of_the_start_or_twice_leaves_nothing(
    serve, repository, tmp_path, monkeypatch, happens, signals
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    process = serve(repository, Ports.free())
    try:
        while not happens(tmp_path / "triton.log", folder):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        (own,) = folder.glob(f"{PREFIX}*")
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (0, "")
    assert stdout.endswith("ram-triton serve: stopped\n")
    assert list(folder.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"{own.name}-*")) == []
    assert kill_all_with(own.name) == []


def test_of_two_starts_at_once_one_goes_on_and_the_other_says_why_not(serve, repository):
    ports = Ports.free()
    processes = [serve(repository, ports) for _ in range(2)]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.02)
        loser, winner = sorted(processes, key=lambda process: process.poll() is None)
        assert winner.poll() is None
        stdout, stderr = loser.communicate()
        winner.send_signal(signal.SIGINT)
        winner.communicate(timeout=PATIENCE)
    finally:
        for process in processes:
            process.kill()
    assert (loser.returncode, winner.returncode) == (1, 0)
    assert f"port {ports.http} is taken" in stderr and stderr.count("\n") == 1
    assert "Ready" not in stdout


@pytest.mark.parametrize("options", [["--address", "0.0.0.0"], ["--", "--grpc-address=0.0.0.0"]])
def test_the_wheels_server_is_kept_on_loopback_unless_its_risk_is_accepted(
    serve, repository, options
):
    process = serve(repository, Ports.free(), *options)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and stderr.count("\n") == 1
    assert stderr.startswith("ram-triton serve: tritonserver 24.10 has known vulnerabilities")
    assert "--accept-known-vulnerabilities" in stderr
