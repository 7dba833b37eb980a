"""The command that makes plans, and what a plan has beside it: whether it still fits."""

import importlib.util
import json
import re
import sys
from contextlib import suppress
from dataclasses import replace
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
from ram_triton.plan_facts import PlanFacts, differences
from ram_triton.plans import PlanBuilder, fits, install
from ram_triton.repository import layout
from ram_triton.repository.configs import Shapes
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


WANTED = PlanFacts(
    plan_sha256="",
    graph_sha256="1234",
    weights_sha256="abcd",
    precision="float16",
    profiles={"pixels": Shapes((1, 9), (16, 9), (32, 9))},
    tensorrt="10.9.0.34",
    gpu="NVIDIA L4",
    compute_capability="8.9",
)
VERSIONS, GPUS = (
    BuilderOptions(version_compatible=True),
    BuilderOptions(hardware_compatible=True),
)


@pytest.fixture
def installed(tmp_path):
    """Install a plan with facts that differ in some; returns its folder."""

    def run(**changed):
        staging, folder = tmp_path / "staging", tmp_path / "1"
        for path in (staging, folder):
            path.mkdir(exist_ok=True)
        install(staging, folder, b"a plan", replace(WANTED, **changed))
        assert not list(staging.iterdir())
        return folder

    return run


def test_a_plan_has_its_facts_and_its_hash_beside_it(installed):
    folder = installed()
    assert json.loads((folder / FACTS).read_text()) == {
        "plan_sha256": sha256(folder / PLAN),
        "graph_sha256": "1234",
        "weights_sha256": "abcd",
        "precision": "float16",
        "profiles": {"pixels": {"min": [1, 9], "opt": [16, 9], "max": [32, 9]}},
        "tensorrt": "10.9.0.34",
        "flavour": "tensorrt",
        "gpu": "NVIDIA L4",
        "compute_capability": "8.9",
        "builder_level": 3,
        "version_compatible": False,
        "hardware_compatible": False,
    }
    assert PlanFacts.read(folder / FACTS) == replace(WANTED, plan_sha256=sha256(folder / PLAN))
    assert (folder / PLAN).read_bytes() == b"a plan"


A10 = {"gpu": "NVIDIA A10", "compute_capability": "8.6"}
PIXELS = WANTED.profiles["pixels"]


@pytest.mark.parametrize(
    ("facts", "options", "reasons"),
    [
        ({}, BuilderOptions(), []),
        ({"graph_sha256": "5678"}, BuilderOptions(), ["another graph"]),
        ({"weights_sha256": "ef01"}, BuilderOptions(), ["other weights"]),
        ({"tensorrt": "10.10.0.31"}, BuilderOptions(), ["by TensorRT 10.10.0.31, this is 10.9"]),
        (A10, BuilderOptions(), [r"NVIDIA A10 \(8.6\), this GPU is NVIDIA L4 \(8.9\)"]),
        ({"gpu": "NVIDIA L40"}, BuilderOptions(), ["was built for NVIDIA L40"]),
        (
            {"profiles": {"pixels": replace(PIXELS, max=(64, 9))}},
            BuilderOptions(),
            ["takes pixels of 1 to 64, fastest at 16; the config asks for 1 to 32, fastest at 16"],
        ),
        (
            {"profiles": {"pixels": replace(PIXELS, max=(32, 7))}},
            BuilderOptions(),
            ["takes pixels of 1x9 to 32x7, fastest at 16x9; the config asks for 1x9 to 32x9"],
        ),
        ({"profiles": {"pixels": Shapes((1,), (2,), (3,))}}, BuilderOptions(), ["1 to 3, fast"]),
        ({"profiles": {}}, BuilderOptions(), ["no profile for the input pixels"]),
        ({"precision": "bfloat16"}, BuilderOptions(), ["is in bfloat16, the graph in float16"]),
        ({"flavour": "tensorrt_rtx"}, BuilderOptions(), ["which Triton does not load"]),
        # What was made with options stays while none are asked for, but not the other way round.
        ({"options": BuilderOptions(5)}, BuilderOptions(), []),
        ({}, BuilderOptions(5), ["was built with builder_level 3, not 5"]),
        ({"options": VERSIONS, "tensorrt": "10.3.0.26"}, BuilderOptions(), []),
        ({"options": VERSIONS, "tensorrt": "9.3.0.1"}, BuilderOptions(), ["by TensorRT 9.3"]),
        ({"options": VERSIONS, "tensorrt": "10.10.0.31"}, BuilderOptions(), ["TensorRT 10.10"]),
        ({}, VERSIONS, ["version_compatible False, not True"]),
        ({"options": GPUS, "gpu": "NVIDIA A10"}, BuilderOptions(), []),
        ({"options": GPUS, **A10}, BuilderOptions(), []),
        ({}, GPUS, ["hardware_compatible False, not True"]),
        (
            {"graph_sha256": "5678", "gpu": "NVIDIA L40"},
            BuilderOptions(5),
            ["another graph", "NVIDIA L40", "builder_level"],
        ),
    ],
)
def test_a_plan_is_kept_only_if_it_fits_and_the_reasons_are_listed(
    installed, facts, options, reasons
):
    folder = installed(**facts)
    wanted = replace(WANTED, options=options, plan_sha256=sha256(folder / PLAN))
    assert fits(folder, wanted) is not bool(reasons)
    found = differences(PlanFacts.read(folder / FACTS), wanted)
    assert len(found) == len(reasons)
    for difference, reason in zip(found, reasons, strict=True):
        assert re.search(reason, difference.text)


@pytest.mark.parametrize(
    ("facts", "runs"),
    [
        ({"gpu": "NVIDIA L40"}, True),
        (A10, False),
        ({"profiles": {"pixels": replace(PIXELS, opt=(8, 9))}}, True),
        ({"profiles": {"pixels": replace(PIXELS, max=(64, 9))}}, True),
        ({"profiles": {"pixels": replace(PIXELS, opt=(8, 9), max=(8, 9))}}, False),
        ({"profiles": {"pixels": replace(PIXELS, min=(2, 9))}}, False),
        ({"precision": "bfloat16"}, False),
    ],
)
def test_a_difference_states_whether_the_plan_runs_nevertheless(facts, runs):
    (difference,) = differences(replace(WANTED, **facts), WANTED)
    assert difference.runs is runs


def test_a_version_is_compared_as_far_as_the_library_reports_it():
    assert not differences(WANTED, replace(WANTED, tensorrt="10.9.0"))
    assert differences(WANTED, replace(WANTED, tensorrt="10.10.0"))
    assert not differences(
        WANTED, replace(WANTED, tensorrt=None, gpu=None, compute_capability=None)
    )


def test_a_hardware_compatible_plan_needs_ampere_or_later():
    found = replace(WANTED, options=GPUS)
    turing = replace(WANTED, gpu="NVIDIA T4", compute_capability="7.5")
    blackwell = replace(WANTED, gpu="NVIDIA B200", compute_capability="10.0")
    (difference,) = differences(found, turing)
    assert "hardware-compatible from 8.0 on" in difference.text and not difference.runs
    assert not differences(found, blackwell)


@pytest.mark.parametrize("damage", ["another plan", "no facts", "torn facts", "no GPU"])
def test_a_damaged_plan_does_not_fit(installed, damage):
    folder = installed()
    assert fits(folder, replace(WANTED, plan_sha256=sha256(folder / PLAN)))
    if damage == "another plan":
        (folder / PLAN).write_bytes(b"half a pl")
    elif damage == "no facts":
        (folder / FACTS).unlink()
    elif damage == "torn facts":
        (folder / FACTS).write_text('{"gpu": ')
    else:
        facts = json.loads((folder / FACTS).read_text()) | {"compute_capability": None}
        (folder / FACTS).write_text(json.dumps(facts))
    assert not fits(folder, replace(WANTED, plan_sha256=sha256(folder / PLAN)))
