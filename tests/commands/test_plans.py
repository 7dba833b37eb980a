"""The command that makes plans, and what a plan has beside it: whether it still fits."""

import importlib.util
import json
import shutil
import sys
from io import StringIO
from types import ModuleType

import pytest
import torch
from ram_triton import plans
from ram_triton.engines.cuda_device import Device
from ram_triton.engines.tensorrt import RTX, Options, load_tensorrt
from ram_triton.errors import PlanError
from ram_triton.graphs.export import export_model
from ram_triton.graphs.half_precision import halve
from ram_triton.model.checkpoint import load_model
from ram_triton.plans import PlanBuilder, fits, install
from ram_triton.repository.layout import ENCODER, FACTS, HEAD, PLAN
from ram_triton.repository.repository import Repository, sha256
from support.golden_checkpoint import golden_weights
from support.pipeline import run_command

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
NO_TENSORRT = not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_bindings")))
H100 = Device("NVIDIA H100 80GB HBM3", "9.0")


@pytest.fixture
def make(monkeypatch, tmp_path, repository, capsys):
    """`make plans` in a copy of the tiny RAM's repository; returns what it says of each model.

    TensorRT-RTX under TensorRT's name does the building: it has the same API, and needs no GPU.
    """

    class TensorRT(ModuleType):
        def __getattr__(self, name):
            return getattr(load_tensorrt(RTX), name)

    trt = TensorRT("tensorrt")
    trt.__version__ = "10.16.1.11"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(plans, "first_device", lambda: H100)
    root = shutil.copytree(repository, tmp_path / "models")

    def run(*arguments):
        status = run_command(
            "plans", ["--repository", str(root), "--builder-level", "0", *arguments]
        )
        said = capsys.readouterr()
        assert (status, said.err) == (0, "")
        return dict(line.split(": ", 1) for line in said.out.splitlines())

    run.root = root
    return run


MODELS = ["ram_encoder", "ram_head", "ram_open_head"]
KEPT = dict.fromkeys(MODELS, "the plan fits this GPU, TensorRT and config")


def test_plans_are_built_once_and_again_if_forced(make):
    def built():
        times = {path.parts[-3]: path.stat().st_mtime_ns for path in make.root.glob("*/1/*.plan")}
        assert sorted(times) == MODELS
        return times

    first = make()
    assert all(line.endswith(" MiB") for line in first.values()) and sorted(first) == MODELS
    made = built()
    (cache,) = (make.root / "ram/1").glob("*.cache")
    assert cache.name == "timing-10.16.1.11-9.0.cache" and cache.stat().st_size
    for model in MODELS:
        folder = make.root / model / "1"
        facts = json.loads((folder / FACTS).read_text())
        assert facts["plan_sha256"] == sha256(folder / PLAN)
        assert facts["weights_sha256"] == sha256(folder / "half.onnx.data")
        assert (facts["gpu"], facts["builder_level"]) == (H100.name, 0)
    assert make() == KEPT
    assert built() == made
    assert make("--force").keys() == KEPT.keys()
    assert not set(built().items()) & set(made.items())


def test_on_a_terminal_each_result_stands_in_the_place_of_the_progress(make, monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
    assert run_command("plans", ["--repository", str(make.root), "--builder-level", "0"]) == 0
    *lines, rest = screen.getvalue().split("\n")
    for line, model in zip(lines, MODELS, strict=True):
        *_, blank, shown = line.split("\r")
        assert blank.isspace() and shown.startswith(f"{model}: {make.root}"), line
    assert rest == ""


def test_a_plan_of_a_model_that_differs_in_its_labels_alone_is_built_anew(make, tmp_path):
    make()
    weights = golden_weights()
    weights["label_embed"] = weights["label_embed"].flip(0)
    torch.save({"model": weights}, tmp_path / "other.pth")
    export_model(load_model(tmp_path / "other.pth"), tmp_path / ENCODER, tmp_path / HEAD)
    head = make.root / "ram_head" / "1" / "half.onnx"
    before = head.read_bytes()
    halve(tmp_path / HEAD, head, "float16")
    assert head.read_bytes() == before, "the labels lie beside the graph"
    said = make()
    assert said.pop("ram_head").endswith(" MiB")
    assert said == {model: KEPT[model] for model in said}


@pytest.mark.parametrize("manifest", ["{", "[1]"])
def test_a_damaged_manifest_is_one_line(make, capsys, manifest):
    path = make.root / "ram/1/manifest.json"
    path.write_text(manifest)
    assert run_command("plans", ["--repository", str(make.root)]) == 1
    said = capsys.readouterr().err
    assert said == f"ram-triton plans: {path}: is damaged: run 'make model' again\n"


def test_an_engine_of_tensorrt_rtx_never_becomes_a_plan(repository):
    with pytest.raises(PlanError, match="Triton does not load them"):
        PlanBuilder(Repository(repository), load_tensorrt(RTX), H100, Options())
    assert not list(repository.glob("*/1/*.plan"))


def test_without_a_gpu_the_graphs_can_be_tried(repository, capsys):
    assert run_command("plans", ["--repository", str(repository), "--engine", "tensorrt_rtx"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["ram_encoder", "ram_head", "ram_open_head"]
    assert all("builds it for batches of 1 to 32, fastest at 16" in line for line in told[:2])
    assert "builds it for batches of 1 to 32, fastest at 1;" in told[2], "labels are its batch"
    assert not list(repository.glob("*/1/*plan*"))


def test_a_graph_that_does_not_fit_its_config_fails_the_trial(repository, tmp_path, capsys):
    copied = shutil.copytree(repository, tmp_path / "models")
    config = copied / "ram_head" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "logits"', 'name: "scores"'))
    assert run_command("plans", ["--repository", str(copied), "--engine", "tensorrt_rtx"]) == 1
    said = capsys.readouterr().err
    assert said == f"ram-triton plans: {config}: the graph has no tensor 'scores'\n"


@pytest.mark.skipif(not NO_TENSORRT, reason="TensorRT is installed")
def test_without_tensorrt_one_line_says_where_to_find_it(repository, capsys):
    assert run_command("plans", ["--repository", str(repository)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("ram-triton plans: TensorRT is missing: run this in the image of")


WANTED = {
    "graph_sha256": "1234",
    "weights_sha256": "abcd",
    "tensorrt": "10.9.0.34",
    "flavour": "tensorrt",
    "gpu": "NVIDIA L4",
    "compute_capability": "8.9",
    "precision": "float16",
    "profiles": {"pixels": {"min": [1, 9], "opt": [16, 9], "max": [32, 9]}},
    "builder_level": 3,
    "version_compatible": False,
    "hardware_compatible": False,
}


@pytest.fixture
def installed(tmp_path):
    """Install a plan with facts that differ in some; returns its folder."""

    def run(**changed):
        staging, folder = tmp_path / "staging", tmp_path / "1"
        for path in (staging, folder):
            path.mkdir(exist_ok=True)
        install(staging, folder, b"a plan", WANTED | changed)
        assert not list(staging.iterdir())
        return folder

    return run


def test_a_plan_has_its_facts_and_its_hash_beside_it(installed):
    folder = installed()
    facts = json.loads((folder / FACTS).read_text())
    assert facts == WANTED | {"plan_sha256": sha256(folder / PLAN)}
    assert (folder / PLAN).read_bytes() == b"a plan"


@pytest.mark.parametrize(
    ("facts", "options", "fit"),
    [
        ({}, Options(), True),
        ({"graph_sha256": "5678"}, Options(), False),
        ({"weights_sha256": "ef01"}, Options(), False),
        ({"tensorrt": "10.10.0.31"}, Options(), False),
        ({"gpu": "NVIDIA A10", "compute_capability": "8.6"}, Options(), False),
        ({"profiles": {"pixels": {"max": [64, 9]}}}, Options(), False),
        ({"precision": "bfloat16"}, Options(), False),
        # What was made with options stays while none are asked for, and the other way round not.
        ({"builder_level": 5}, Options(), True),
        ({}, Options(level=5), False),
        ({"version_compatible": True, "tensorrt": "10.3.0.26"}, Options(), True),
        ({"version_compatible": True, "tensorrt": "9.3.0.1"}, Options(), False),
        ({"version_compatible": True, "tensorrt": "10.10.0.31"}, Options(), False),
        ({}, Options(version_compatible=True), False),
        ({"hardware_compatible": True, "gpu": "NVIDIA A10"}, Options(), True),
        ({}, Options(hardware_compatible=True), False),
    ],
)
def test_a_plan_is_kept_only_where_it_fits(installed, facts, options, fit):
    wanted = WANTED | {
        "builder_level": options.level,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
    }
    assert fits(installed(**facts), wanted, options) is fit


def test_a_hardware_compatible_plan_needs_ampere_or_later(installed):
    folder = installed(hardware_compatible=True)
    turing = WANTED | {"gpu": "NVIDIA T4", "compute_capability": "7.5"}
    blackwell = WANTED | {"gpu": "NVIDIA B200", "compute_capability": "10.0"}
    assert not fits(folder, turing, Options())
    assert fits(folder, blackwell, Options())


@pytest.mark.parametrize("damage", ["no plan", "another plan", "no facts", "torn facts"])
def test_a_damaged_plan_does_not_fit(installed, damage):
    folder = installed()
    if damage == "no plan":
        (folder / PLAN).unlink()
    elif damage == "another plan":
        (folder / PLAN).write_bytes(b"half a pl")
    elif damage == "no facts":
        (folder / FACTS).unlink()
    else:
        (folder / FACTS).write_text('{"gpu": ')
    assert not fits(folder, WANTED, Options())
