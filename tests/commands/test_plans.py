"""The command that makes plans."""

import importlib.util
import json
import re
import sys
from contextlib import suppress
from io import StringIO
from types import ModuleType

import pytest
import torch
from ram_triton import plans
from ram_triton.engines.tensorrt import RTX, BuilderOptions, load_tensorrt
from ram_triton.errors import PlanError, RepositoryError
from ram_triton.files import sha256
from ram_triton.gpus import Gpu
from ram_triton.graphs.export import export_model
from ram_triton.graphs.half_precision import halve
from ram_triton.model.checkpoint import load_model
from ram_triton.plans import PlanBuilder
from ram_triton.repository import layout
from ram_triton.repository.layout import ENCODER, FACTS, HEAD, PLAN
from ram_triton.repository.repository import Repository
from support.golden_checkpoint import golden_weights
from support.pipeline import run_command

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
NO_TENSORRT = not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_bindings")))
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", None, None)


@pytest.fixture
def make(monkeypatch, copied, capsys):
    """`make plans` in a copy of the tiny RAM's repository; returns what it says of each model.

    TensorRT-RTX under TensorRT's name does the building: it has the same API, and needs no GPU.
    """

    class TensorRT(ModuleType):
        def __getattr__(self, name):
            return getattr(load_tensorrt(RTX), name)

    trt = TensorRT("tensorrt")
    trt.__version__ = "10.16.1.11"
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(plans, "first_gpu", lambda: H100)

    def run(*arguments):
        status = run_command(
            "plans", ["--repository", str(copied), "--builder-level", "0", *arguments]
        )
        said = capsys.readouterr()
        assert (status, without_progress(said.err)) == (0, "")
        return dict(line.split(": ", 1) for line in said.out.splitlines())

    run.root = copied
    return run


def without_progress(text):
    """What stands on stderr beside the line that comes every 10 seconds."""
    return re.sub(r"^ram_\w+.*, \d+ s\n", "", text, flags=re.MULTILINE)


MODELS = ["ram_encoder", "ram_head", "ram_open_head", "ram_maps", "ram_open_maps"]
KEPT = dict.fromkeys(MODELS, "the plan fits this GPU, TensorRT and config")


def test_plans_are_built_once_and_again_if_forced(make):
    def built():
        times = {path.parts[-3]: path.stat().st_mtime_ns for path in make.root.glob("*/1/*.plan")}
        assert set(times) == set(MODELS)
        return times

    first = make()
    assert all(line.endswith(" MiB") for line in first.values()) and set(first) == set(MODELS)
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
    (make.root / "ram_head/1" / PLAN).unlink()
    said = make()
    assert said.pop("ram_head").endswith(" MiB") and said.items() <= KEPT.items()
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
    assert "%" in screen.getvalue(), "how far it is"
    lines = shown_by_terminal(screen.getvalue())
    assert [line.partition(f": {make.root}")[0] for line in lines] == MODELS


def shown_by_terminal(text):
    """What stands on a terminal that was sent a text with rich's control sequences."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", text):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return [line for line in lines if line]


@pytest.mark.slow
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


def test_a_plan_is_of_the_graph_whose_hash_is_beside_it(copied, monkeypatch):
    """A build ends just when the graph was read, and replaces it."""
    repository, folder = Repository(copied), copied / "ram_head" / "1"
    graph = folder / "half.onnx"

    class PlanOfTheGraphItself:
        def __init__(self):
            self.plan = graph.read_bytes()

        def build(self, *_):
            return self.plan, b""

    def parse(*_):
        network = PlanOfTheGraphItself()
        with suppress(RepositoryError), repository.staging():
            graph.write_bytes(b"of another build")
        return network, {}

    monkeypatch.setattr(plans, "parse", parse)
    trt = ModuleType("tensorrt")
    trt.__version__ = "10.16.1.11"
    PlanBuilder(repository, trt, H100, BuilderOptions()).make(
        layout.MODELS["ram_head"], lambda *_: None
    )
    facts = json.loads((folder / FACTS).read_text())
    assert facts["graph_sha256"] == sha256(folder / PLAN)


@pytest.mark.parametrize("manifest", ["{", "[1]"])
def test_a_damaged_manifest_is_one_line(make, capsys, manifest):
    path = make.root / "ram/1/manifest.json"
    path.write_text(manifest)
    assert run_command("plans", ["--repository", str(make.root)]) == 1
    said = without_progress(capsys.readouterr().err)
    assert said == f"ram-triton plans: {path}: is damaged: run 'make model' again\n"


def test_an_engine_of_tensorrt_rtx_never_becomes_a_plan(repository):
    with pytest.raises(PlanError, match="are not Triton plans"):
        PlanBuilder(Repository(repository), load_tensorrt(RTX), H100, BuilderOptions())
    assert not list(repository.glob("*/1/*.plan"))


def test_without_a_gpu_the_graphs_can_be_tried(repository, capsys):
    assert run_command("plans", ["--repository", str(repository), "--engine", "tensorrt_rtx"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == MODELS
    assert all("builds it for batches of 1 to 32, fastest at 16" in line for line in told[:2])
    assert "builds it for batches of 1 to 32, fastest at 1;" in told[2], "labels are its batch"
    assert not list(repository.glob("*/1/*plan*"))


def test_a_graph_that_does_not_fit_its_config_fails_the_trial(copied, capsys):
    config = copied / "ram_head" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "logits"', 'name: "scores"'))
    assert run_command("plans", ["--repository", str(copied), "--engine", "tensorrt_rtx"]) == 1
    said = without_progress(capsys.readouterr().err)
    assert said == f"ram-triton plans: {config}: the graph has no tensor 'scores'\n"


@pytest.mark.skipif(not NO_TENSORRT, reason="TensorRT is installed")
def test_without_tensorrt_one_line_says_where_to_find_it(repository, capsys):
    assert run_command("plans", ["--repository", str(repository)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("ram-triton plans: TensorRT is missing: run this in the image of")
