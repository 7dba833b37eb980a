"""What a plan has beside it, and whether it still fits."""

import json
import re
from dataclasses import replace

import pytest
from ram_triton.engines.tensorrt import BuilderOptions
from ram_triton.files import sha256
from ram_triton.plan_facts import PlanFacts, differences
from ram_triton.plans import fits, install
from ram_triton.repository.configs import Shapes
from ram_triton.repository.layout import FACTS, PLAN

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
