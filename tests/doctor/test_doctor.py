"""The doctor: what is wrong with the machine is seen, and all findings are shown with a remedy."""

import json
import os
import re
import socket
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from ram_triton.doctor.machine import check_server
from ram_triton.doctor.report import error, print_table
from ram_triton.repository.layout import CPU, GPU
from ram_triton.server import LOOPBACK, Ports
from ram_triton.server.installation import VARIABLE
from support.doctor_runs import examine, run_doctor

ROOT = Path(__file__).parents[2]


def test_nothing_is_wrong_with_a_repository_that_was_just_built(repository):
    assert examine(repository) == (0, {})


def test_the_cpu_profile_needs_no_gpu_and_says_so(repository):
    told = json.loads(run_doctor(repository, "--json", "--profile", "cpu").stdout)
    gpu = {f["subject"]: f["status"] for f in told["findings"] if f["status"] == "not needed"}
    assert set(gpu) == {"GPUs", "plans", "GPU memory"}


def test_the_table_shows_what_is_wrong_beside_its_remedy(copied):
    (copied / "notes.txt").write_text("mine")
    done = run_doctor(copied, "--profile", "cpu")
    (row,) = [line for line in done.stdout.splitlines() if "notes.txt is not a model" in line]
    assert "error" in row and "move notes.txt out of" in row
    assert done.returncode == 2


@pytest.mark.parametrize("width", [80, 40])
def test_in_a_terminal_a_long_path_is_broken_and_never_cut(monkeypatch, capsys, width):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    path = "ram_postprocess/1/" + "a" * 100 + "/vocabulary.json"
    print_table([error("vocabulary", f"{path} is missing", f"restore {path}")])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, plain.splitlines())) <= width
    assert "".join(plain.split()) == f"errorvocabulary{path}ismissing→restore{path}"


def test_a_number_that_is_no_port_is_refused_in_a_line(repository):
    done = run_doctor(repository, ports=Ports(http=99999))
    assert done.returncode == 2
    assert done.stderr.endswith("error: argument --http-port: '99999' is not a port: 1 to 65535\n")


@pytest.mark.parametrize(
    ("release", "status", "text"),
    [
        ("26.11", "fine", "26.11, of NVIDIA's image"),
        ("26.08", "warning", "use-after-free"),
        ("26.07", "warning", "stall under load (server#8870); a use-after-free"),
        ("26.06", "error", "severity 9.8"),
        ("24.10", "error", "severity 9.8"),
        ("soon", "error", "severity 9.8"),
    ],
)
@pytest.mark.parametrize("profile", [CPU, GPU])
def test_an_image_that_is_too_old_is_told(monkeypatch, profile, release, status, text):
    monkeypatch.setenv(VARIABLE, release)
    (finding,) = [found for found in check_server(profile) if found.subject == "tritonserver"]
    assert str(finding.status) == status and text in finding.text


@pytest.mark.parametrize("kind", ["http", "grpc", "metrics", "health"])
def test_a_taken_port_is_named_with_what_to_do(repository, kind):
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        ports = replace(Ports.free(), **{kind: port})
        status, found = examine(repository, ports=ports)
    assert (status, found.keys()) == (2, {"ports"})
    assert found["ports"][1] == f"{port} ({kind}) is taken"
    assert f"--{kind}-port" in found["ports"][2]


def test_of_an_empty_folder_there_is_one_error_with_one_remedy(tmp_path):
    status, found = examine(tmp_path)
    remedy = "run 'make model', or 'make demo' for a toy"
    assert (status, found) == (
        2,
        {"repository": ["error", f"{tmp_path} contains no model", remedy]},
    )


def test_a_folder_that_is_not_there_is_told(tmp_path):
    status, found = examine(tmp_path / "nowhere")
    assert (status, list(found)) == (2, ["repository"])


@pytest.fixture
def bare_python(tmp_path):
    """A Python that has nothing but itself, as the serving image's before its packages."""
    folder = tmp_path / "bare"
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python3"


def examine_python(repository, python):
    """What is found if `python` is the first on PATH, as the GPU profile's backend takes it."""
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    return examine(repository, "--profile", "gpu", environment=environment)


def test_a_backend_python_without_packages_is_told_what_to_install(repository, bare_python):
    status, found = examine_python(repository, bare_python)
    assert status == 2
    for package in ("Pillow", "numpy"):
        assert found[package][1].startswith("cannot be imported")
        assert f"{bare_python} -m pip install" in found[package][2]


def test_numpy_2_and_an_old_pillow_are_refused(repository, bare_python):
    """Modules that carry such versions are among the examined Python's packages."""
    (packages,) = bare_python.parents[1].glob("lib/python*/site-packages")
    files = {
        "numpy.py": "__version__ = '2.1.0'",
        "PIL/__init__.py": "__version__ = '9.5.0'",
        "PIL/features.py": "def check(name): return True",
    }
    (packages / "PIL").mkdir()
    for name, text in files.items():
        (packages / name).write_text(text)
    _, found = examine_python(repository, bare_python)
    assert found["numpy"][1].startswith("2.1.0: Triton's Python backend breaks")
    assert found["Pillow"][1] == "9.5.0 is too old for the preprocessor"
    assert found["Pillow"][2].endswith("pip install 'pillow>=10.1'")
