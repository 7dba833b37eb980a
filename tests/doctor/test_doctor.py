"""The doctor: each thing that can be wrong with a repository is seen, and comes with a remedy."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from ram_triton.doctor.checks import check_configs
from ram_triton.doctor.machine import check_server
from ram_triton.doctor.memory import (
    available_memory,
    check_decoding_memory,
    check_shared_memory,
    instance_bytes,
)
from ram_triton.doctor.report import error, print_table
from ram_triton.doctor.repository_view import RepositoryView
from ram_triton.repository.layout import CPU, GPU
from ram_triton.server import LOOPBACK, Ports, TritonServer
from ram_triton.triton_release import VARIABLE
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

ROOT = Path(__file__).parents[2]


def run_doctor(repository, *arguments, ports=None, environment=None):
    ports = vars(ports or Ports.free())
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ram_triton",
            "doctor",
            "--repository",
            repository,
            *arguments,
            *(f"--{name}-port={number}" for name, number in ports.items()),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )


# What other processes leave of the machine; how it is judged has tests of its own below.
SHORT = [(subject, "warning") for subject in ("shared memory", "decoding memory")]


def examine(repository, *arguments, **options):
    """Exit status, and [status, text, remedy] of what is not fine: the first of each subject.

    Both without a warning about memory that is short just now.
    """
    done = run_doctor(repository, "--json", *(arguments or ("--profile", "cpu")), **options)
    assert re.sub(r"^checking.*, \d+ s\n", "", done.stderr, flags=re.MULTILINE) == ""
    told = json.loads(done.stdout)
    assert told["status"] == done.returncode
    wrong = [
        (subject, [status, *rest])
        for subject, status, *rest in (finding.values() for finding in told["findings"])
        if status not in ("fine", "not needed") and (subject, status) not in SHORT
    ]
    status = 2 if any(rest[0] == "error" for _, rest in wrong) else int(bool(wrong))
    assert done.returncode in (status, max(status, 1))  # 1 if memory is short
    return status, dict(reversed(wrong))


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


def test_a_flipped_byte_in_an_artefact_is_found(copied):
    weights = copied / "ram_head" / "1" / "model.onnx.data"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    text = "ram_head/1/model.onnx.data is not what was built (SHA-256 differs)"
    status, found = examine(copied)
    assert (status, found.keys()) == (2, {"artefacts"})
    assert found["artefacts"] == ["error", text, found["artefacts"][2]]
    assert found["artefacts"][2].startswith("run 'make model' again")


def test_a_missing_artefact_is_named(copied):
    (copied / "ram_encoder" / "1" / "model.onnx.data").unlink()
    _, found = examine(copied)
    assert found["artefacts"][:2] == ["error", "ram_encoder/1/model.onnx.data is missing"]


def test_an_interrupted_build_is_known_by_its_missing_manifest(copied):
    (copied / "ram" / "1" / "manifest.json").unlink()
    status, found = examine(copied)
    assert status == 2
    assert "its build was interrupted" in found["artefacts"][1]
    assert found["artefacts"][2].startswith("run 'make model'")


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_without_a_model_there_is_one_error_with_one_remedy(copied, profile):
    manifest = copied / "ram" / "1" / "manifest.json"
    for name in json.loads(manifest.read_text())["artefacts"]:
        (copied / name).unlink()
    manifest.unlink()
    _, found = examine(copied, "--profile", profile)
    assert found["artefacts"][2] == "run 'make model', or 'make demo' for a toy"
    assert found.keys() - {"artefacts", "GPUs", "GPU memory"} <= {"Pillow", "numpy"}
    assert profile == "gpu" or found.keys() == {"artefacts"}


def test_more_labels_than_the_heads_plan_takes_are_an_error(copied):
    config = copied / "ram_open_labels" / "config.pbtxt"
    config.write_text(config.read_text().replace('"5000"', '"6000"'))
    status, found = examine(copied, "--profile", "gpu")
    text = "ram_open_labels allows 6000 labels, ram_open_head's plans take 5000"
    assert (status, found["configs"][1]) == (2, text)


def test_an_ensemble_from_before_heat_maps_is_a_warning(copied):
    config = copied / "ram_pixels" / "config.pbtxt"
    config.write_text(config.read_text().replace('{ name: "maps" ', '{ name: "places" '))
    (finding,) = check_configs(RepositoryView.read(copied, CPU))
    assert (str(finding.status), "restore the project's config" in finding.remedy) == (
        "warning",
        True,
    )
    text = "ram_pixels/config.pbtxt is from before heat maps: it has no output 'maps'"
    assert finding.text == text


@pytest.mark.parametrize(
    ("model", "usual"), [("ram_maps", "1, 8, 256"), ("ram_open_maps", "1x1, 1x8, 32x256")]
)
def test_plans_of_maps_that_take_fewer_tags_than_they_are_asked_for_are_an_error(
    copied, model, usual
):
    config = copied / model / "config.pbtxt"
    assert f'"{usual}"' in config.read_text()
    config.write_text(config.read_text().replace(usual, usual.replace("256", "64")))
    (finding,) = check_configs(RepositoryView.read(copied, GPU))
    assert str(finding.status) == "error"
    assert "plans take 64 tags per image, the postprocessor asks for up to 256" in finding.text


def test_a_vocabulary_that_lost_a_tag_is_shorter_than_the_logits(copied):
    path = copied / "ram_postprocess" / "1" / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    _, found = examine(copied)
    assert found["vocabulary"][1] == "39 tags, but ram_head/1/model.onnx has 40"
    assert "make model" in found["vocabulary"][2]


def test_the_half_precision_graph_is_looked_at_too(copied):
    shutil.copy(copied / "ram_encoder/1/half.onnx", copied / "ram_head/1/half.onnx")
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/half.onnx: has no tensor 'logits'"


def test_a_truncated_vocabulary_is_told(copied):
    path = copied / "ram_postprocess" / "1" / "vocabulary.json"
    path.write_text(path.read_text()[:-50])
    _, found = examine(copied)
    assert "cut short" in found["vocabulary"][1]


def test_an_image_size_that_is_not_the_graphs_is_told(copied):
    (copied / "ram_preprocess" / "1" / "variant.json").write_text('{"image_size": 224}')
    _, found = examine(copied)
    assert found["image size"][1] == "224 px, but ram_encoder/1/model.onnx has 96"


def test_two_image_sizes_are_told(copied):
    (copied / "ram_pixels_check" / "1" / "variant.json").write_text('{"image_size": 224}')
    _, found = examine(copied)
    assert found["image size of pixels"][1] == (
        "ram_preprocess/1/variant.json has 96 px, ram_pixels_check/1/variant.json has 224"
    )


def test_a_graph_that_is_none_is_told_in_a_line(copied):
    (copied / "ram_head" / "1" / "model.onnx").write_text("<html>not found</html>")
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/model.onnx: is not an ONNX graph"


def test_a_config_that_does_not_parse_is_named_with_its_place(copied):
    config = copied / "ram_head" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: many"))
    _, found = examine(copied)
    assert found["configs"][1].startswith("ram_head/configs/cpu.pbtxt: 5:17")


def test_int8_that_the_last_build_left_out_is_told_with_both_remedies(copied):
    config = copied / "ram_head" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("model.onnx", "int8.xml", 1))
    status, found = examine(copied)
    assert status == 2 and found["configs"] == [
        "error",
        "ram_head/configs/cpu.pbtxt names ram_head/1/int8.xml, which is missing",
        "run 'make model' with INT8=DIR, or name model.onnx in ram_head/configs/cpu.pbtxt",
    ]


@pytest.mark.parametrize(
    "manifest",
    [
        [1],
        "x",
        {"artefacts": ["a"]},
        {"variant": []},
        {"variant": {"image_size": "a"}},
        {"artefacts": {"a\0b": "1234"}},
    ],
)
def test_a_manifest_that_nobody_wrote_is_told_in_findings(copied, manifest):
    path = copied / "ram" / "1" / "manifest.json"
    if isinstance(manifest, dict):
        manifest = json.loads(path.read_text()) | manifest
    path.write_text(json.dumps(manifest))
    for profile in ("cpu", "gpu"):
        status, found = examine(copied, "--profile", profile)
        assert status >= 1 and found.keys() & {"artefacts", "shared memory"}


def test_a_limit_that_is_no_number_is_told(copied):
    config = copied / "ram_preprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace('"20971520"', '"20 MB"'))
    status, found = examine(copied)
    assert status == 2
    text = "ram_preprocess/config.pbtxt: the parameter 'max_bytes' is '20 MB', not a whole number"
    assert found["configs"][1] == text


@pytest.mark.parametrize(
    ("model", "name", "good", "bad", "what"),
    [
        ("ram_open_labels", "max_new_labels", "1000", "many", "a whole number"),
        ("ram_open_labels", "default_threshold", "0.5", "half", "a number"),
        ("ram_open_labels", "default_threshold", "0.5", "nan", "a number"),
    ],
)
def test_every_number_that_a_python_model_reads_is_checked(copied, model, name, good, bad, what):
    config = copied / model / "config.pbtxt"
    parameter = f'"{name}" value {{ string_value: "%s" }}'
    assert parameter % good in config.read_text()
    config.write_text(config.read_text().replace(parameter % good, parameter % bad))
    status, found = examine(copied)
    text = f"{model}/config.pbtxt: the parameter '{name}' is '{bad}', not {what}"
    assert (status, found["configs"][1]) == (2, text)


def test_logits_of_one_dimension_are_told(copied):
    path = copied / "ram_head" / "1" / "model.onnx"
    graph = onnx.load(path, load_external_data=False)
    del graph.graph.output[0].type.tensor_type.shape.dim[1:]
    onnx.save(graph, path)
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/model.onnx: 'logits' has 1 dimensions"


def test_a_number_that_is_no_port_is_refused_in_a_line(repository):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ram_triton",
            "doctor",
            "--repository",
            repository,
            "--http-port",
            "99999",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("error: argument --http-port: '99999' is not a port: 1 to 65535\n")


def test_a_step_that_takes_smaller_batches_than_the_ensemble_is_told(copied):
    config = copied / "ram_postprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 8"))
    _, found = examine(copied)
    assert "max_batch_size 8 is below the ensemble's 32" in found["configs"][1]


@pytest.mark.parametrize(
    ("model", "old", "new", "status", "text"),
    [
        ("ram_head/configs/cpu.pbtxt", '"ram_openvino"', '"openvino"', 2, "is NVIDIA's"),
        ("ram_head/config.pbtxt", "batch_size: 24", "batch_size: 64", 2, "a graph_spec of 64"),
        (
            "ram_encoder/config.pbtxt",
            "max_queue_delay_microseconds: 0",
            "max_queue_delay_microseconds: 9",
            1,
            "slows the batcher to a stall",
        ),
    ],
)
def test_settings_under_which_triton_stalls_or_does_not_start_are_told(
    copied, model, old, new, status, text
):
    config = copied / model
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    view = RepositoryView.read(copied, CPU if "cpu" in model else GPU)
    (finding,) = check_configs(view)
    assert text in finding.text and str(finding.status) == ("error" if status == 2 else "warning")


def test_a_picture_for_the_warm_up_that_is_missing_is_told(copied):
    (copied / "ram_preprocess/warmup/image").unlink()
    (finding,) = check_configs(RepositoryView.read(copied, GPU))
    assert "names ram_preprocess/warmup/image, which is missing" in finding.text


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


def test_a_taken_port_is_named_with_what_to_do(repository):
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        ports = Ports(grpc=port, http=Ports.free().http, metrics=Ports.free().metrics)
        status, found = examine(repository, ports=ports)
    assert (status, found.keys()) == (2, {"ports"})
    assert found["ports"][1] == f"{port} (grpc) is taken"
    assert "--grpc-port" in found["ports"][2]


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


def inspect(repository):
    view = RepositoryView.read(repository, CPU)
    assert [str(finding.status) for finding in check_configs(view)] == ["fine"]
    return view


def needed(view, model):
    return instance_bytes(view, view.variant, model)


@pytest.mark.parametrize(
    ("free", "status"), [(2**20, "error"), (64 * 2**20, "warning"), (12 * 2**30, "fine")]
)
def test_shared_memory_is_compared_with_what_full_batches_take(repository, free, status):
    (finding,) = check_shared_memory(inspect(repository), (free, free))
    assert str(finding.status) == status
    assert status == "fine" or "--shm-size=11g" in finding.remedy


@pytest.mark.parametrize(("available", "status"), [(2**30, "warning"), (2**36, "fine")])
def test_what_decoding_may_take_is_compared_with_what_is_available(repository, available, status):
    (finding,) = check_decoding_memory(inspect(repository), available)
    assert str(finding.status) == status
    # 4 instances, 12 bytes per pixel and 4 per byte of the limits, and an ordinary JPEG.
    assert "1.6 GiB each" in finding.text
    assert status == "fine" or "max_pixels" in finding.remedy


def test_memory_that_the_kernel_does_not_report_is_not_known(repository, tmp_path):
    assert available_memory() > 2**20
    assert available_memory(tmp_path / "meminfo") is None
    (finding,) = check_decoding_memory(inspect(repository), None)
    assert str(finding.status) == "unknown"


def test_the_estimate_of_shared_memory_covers_what_a_real_server_takes(repository):
    """A full batch of large images, and how large the preprocessor's region then is."""
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    images = np.array([[buffer.getvalue()]] * 32, np.object_)
    with TritonServer(repository) as server, InferenceServerClient(server.http) as client:
        tensor = InferInput("image", [32, 1], "BYTES")
        tensor.set_data_from_numpy(images)
        client.infer("ram", [tensor], outputs=[InferRequestedOutput("count")])
        largest = max(path.stat().st_size for path in server.regions)
    view = inspect(repository)
    limit = view.configs["ram_preprocess"].model.parameters["max_bytes"]
    limit.string_value = str(len(buffer.getvalue()))
    sent = 32 * len(buffer.getvalue())
    assert sent < largest <= needed(view, "ram_preprocess") < 2 * sent


def test_a_model_that_hands_the_images_on_is_counted_with_them_in_and_out(repository):
    view = inspect(repository)
    images = 32 * int(20971520 * 4 / 3)
    assert 2 * images <= needed(view, "ram_open_labels") < 2 * images + 2**20 * 2
