"""The benchmark: what it writes, and that a wrong answer or a strange file fails it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from ram_triton.bench.candidates import ENGINE, GRPC, PYTORCH
from ram_triton.bench.report import OVER_ENGINE, OVER_PRODUCT, OVER_PYTORCH
from ram_triton.server import LOOPBACK, Ports
from support.pipeline import PICTURES, copy_models, run_command, use_float32

ROOT = Path(__file__).parents[2]
# One short round of everything.
SHORT = (
    "--repeats",
    1,
    "--seconds",
    0,
    "--shrink",
    8,
    "--concurrency",
    1,
    2,
    "--batch",
    1,
    2,
    "--images",
    PICTURES,
)
ONE = np.array([1], np.float32)
STEPS = ["ram_preprocess", "ram_encoder", "ram_head", "ram_postprocess", "ram"]


@pytest.fixture(scope="module")
def short_run(repository, checkpoint, tmp_path_factory):
    """A run on the tiny model, as a process: it, and the folder that it wrote to."""
    output = tmp_path_factory.mktemp("bench")
    arguments = "--repository", repository, "--checkpoint", checkpoint, *SHORT, "--output", output
    command = [sys.executable, "-m", "ram_triton", "bench", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert process.returncode == 0, process.stderr
    return process, output


@pytest.fixture
def bench(capsys):
    """Run it here; returns the exit status, stdout, and the lines on stderr."""

    def run(*arguments):
        status = run_command("bench", arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


@pytest.fixture(scope="module")
def measured(short_run):
    return json.loads((short_run[1] / "bench.json").read_text())


def test_the_table_compares_pytorch_the_engine_and_grpc(short_run):
    lines = short_run[0].stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    compared = [tuple(row[:4]) for row in rows if row and row[0] in (PYTORCH, ENGINE, GRPC)]
    assert compared == [
        ("PyTorch", "float32", "1", "1"),
        ("engine alone", "float32", "1", "1"),
        ("PyTorch", "float32", "2", "1"),
        ("engine alone", "float32", "2", "1"),
        *(("Triton through gRPC", "float32", batch, clients) for batch in "12" for clients in "12"),
    ]
    assert "tag F1 1.0000 on" in short_run[0].stdout


def test_the_time_it_takes_is_shown_before_anything_is_measured(short_run):
    first, second, *_ = short_run[0].stderr.splitlines()
    assert first.endswith("take at least 0.0 minutes, more if a request takes longer")
    assert second == "warming up: PyTorch, batch 1, 1 clients"


def test_a_small_models_table_explains_what_weighs_in_it_and_one_round_has_no_spread(short_run):
    table = short_run[0].stdout
    assert "The engines take only" in table and "ms per request here" in table
    assert " to " not in next(line for line in table.splitlines() if line.startswith("| PyTorch"))


def test_the_json_says_on_what_and_of_what_it_was_measured(measured):
    assert measured["machine"]["cores"] > 0 and measured["machine"]["processor"]
    assert measured["machine"]["versions"]["tritonserver"] == "2.51.0"
    assert measured["model"]["variant"].endswith("96 px with 40 tags")
    assert len(measured["model"]["checkpoint"]["sha256"]) == 64


def test_each_figure_comes_with_all_its_rounds_and_their_spread(measured):
    assert len(measured["throughput"]) == 8
    for row in measured["throughput"]:
        assert row["requests"] >= row["concurrency"]
        for name in ("images_per_second", "p50_ms"):
            figure = row[name]
            assert 0 < figure["low"] <= figure["median"] <= figure["high"]
            assert len(figure["values"]) == 1
        assert row["p50_ms"]["median"] <= row["p99_ms"]


def test_each_steps_share_comes_from_tritons_statistics(measured):
    assert [row["step"] for row in measured["steps"]] == STEPS * 4
    for row in measured["steps"]:
        parts = [row[f"{part}_ms"] for part in ("queue", "input", "infer", "output")]
        assert min(parts) >= 0 and row["infer_ms"] > 0
        if row["step"] != "ram":  # an ensemble's parts are its steps', which partly run at once
            assert sum(parts) <= row["total_ms"] * 1.001


def test_preprocessor_postprocessor_and_the_machine_are_measured_alone(measured):
    one_core = measured["preprocessor"]["one_core"]
    assert [row["picture"].split(", ")[1] for row in one_core] == ["JPEG", "JPEG", "PNG"]
    assert one_core[2]["mean_difference"] == 0, "a PNG has no reduced scale"
    assert 0 < one_core[0]["mean_difference"] < 2
    clients = [row["concurrency"] for row in measured["preprocessor"]["served"]]
    assert clients == sorted({1, measured["machine"]["cores"]})
    assert measured["postprocessor_ms"]["median"] > 0
    assert measured["matrix_product"]["products_of_an_image"] > 1e6
    marks = {(mark["name"], mark["batch"]) for mark in measured["marks"]}
    assert marks >= {(OVER_PYTORCH, 1), (OVER_ENGINE, 2), (OVER_PRODUCT, 1)}
    assert not any("PNG" in name for name, _ in marks), "both ways are the same"
    if len(clients) > 1:
        several = f"on {clients[1]} cores, {clients[1]} clients, times one client's throughput"
        assert (f"preprocessor {several}", None) in marks


@pytest.mark.slow
def test_int8_is_measured_where_the_config_chooses_it(bench, quantised, tmp_path):
    copied = copy_models(quantised, tmp_path / "models")
    use_float32(copied)
    arguments = "--repository", copied, *SHORT, "--batch", 1, "--concurrency", 1
    status, table, errors = bench(*arguments, "--output", tmp_path / "out")
    assert status == 0, errors
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["throughput"]
    assert [(row["name"], row["precision"]) for row in rows] == [
        ("engine alone", "INT8"),
        ("Triton through gRPC", "INT8"),
    ]
    assert "matrix product in INT8 does" in table


@pytest.mark.parametrize(
    ("given", "benched"),
    [
        ("", "--repository runs/demo/model_repository --checkpoint build/demo/weights"),
        ("CHECKPOINT=my.pth", "--repository='model_repository' --checkpoint='my.pth'"),
        ("SERVER=gpu:8001", "--repository='model_repository' --server='gpu:8001'"),
        ("REPOSITORY=mine", "--repository='mine'"),
    ],
    ids=["nothing", "checkpoint", "server", "repository"],
)
def test_make_benches_the_demo_only_where_no_other_model_is_given(given, benched):
    told = subprocess.run(
        ["make", "--dry-run", "bench", *given.split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    (command,) = (line for line in told.splitlines() if "ram-triton bench" in line)
    assert benched in " ".join(command.split())


def test_a_picture_is_drawn(short_run):
    with Image.open(short_run[1] / "bench.png") as picture:
        assert picture.format == "PNG" and picture.width > 800


def test_a_wrong_answer_fails_it(bench, copied, checkpoint, tmp_path):
    path = copied / "ram_head" / "1" / "model.onnx"
    head = onnx.load(path)
    logits = head.graph.output[0].name
    producer = next(node for node in head.graph.node if logits in node.output)
    producer.output[0] = "right"
    head.graph.initializer.append(numpy_helper.from_array(ONE, "one"))
    head.graph.node.append(onnx.helper.make_node("Add", ["right", "one"], [logits]))
    onnx.save(head, path)
    output = tmp_path / "out"
    arguments = "--repository", copied, "--checkpoint", checkpoint, *SHORT
    status, _, errors = bench(*arguments, "--output", output)
    assert status == 1
    assert errors[-1].startswith(
        "ram-triton bench: Triton through gRPC: a wrong answer: a logit is off by 1"
    )
    assert not any(output.iterdir())


def test_a_picture_that_is_cut_short_is_one_line(bench, repository, tmp_path):
    picture = tmp_path / "cut.jpg"
    picture.write_bytes(next(PICTURES.glob("*.jpg")).read_bytes()[:500])
    arguments = "--repository", repository, "--images", tmp_path
    status, _, (line,) = bench(*arguments, "--output", tmp_path / "out")
    assert status == 1 and line.startswith(f"ram-triton bench: {picture}: ")


def test_an_output_that_cannot_be_written_is_reported_before_measuring(bench, repository, tmp_path):
    (tmp_path / "file").touch()
    file = tmp_path / "file"
    status, table, (line,) = bench("--repository", repository, "--output", file)
    assert (status, table) == (1, "")
    assert line == f"ram-triton bench: {file}: cannot be written (Not a directory)"


@pytest.mark.parametrize("seconds", ["-5", "nan", "inf"])
def test_seconds_must_be_a_number_from_0_on(seconds, capsys):
    with pytest.raises(SystemExit):
        run_command("bench", ["--seconds", seconds])
    assert "is not a number of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "ram/1/manifest.json").unlink(), "contains no model"),
        (lambda root: (root / "ram_head/1/model.onnx").write_bytes(b""), "is not the graph"),
    ],
    ids=["no model", "another graph"],
)
def test_a_repository_that_is_not_as_it_was_built_is_one_line(
    bench, copied, tmp_path, change, message
):
    change(copied)
    status, table, (line,) = bench("--repository", copied, "--output", tmp_path)
    assert (status, table) == (1, "")
    assert line.startswith(f"ram-triton bench: {copied}") and message in line


def test_the_checkpoint_of_another_model_is_refused(bench, repository, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    arguments = "--repository", repository, "--checkpoint", other
    status, _, (line,) = bench(*arguments, "--output", tmp_path)
    assert status == 1
    assert line.startswith(
        f"ram-triton bench: {other}: the repository was built from another checkpoint, 'tiny.pth'"
    )


def test_a_server_that_does_not_answer_is_one_line(bench, repository, tmp_path):
    port = Ports.free().grpc
    arguments = ("--repository", repository, "--images", PICTURES, "--output", tmp_path)
    status, _, (_, line) = bench(*arguments, "--server", f"{LOOPBACK}:{port}")
    assert status == 1
    assert line.startswith(f"ram-triton bench: {LOOPBACK}:{port}: ")
