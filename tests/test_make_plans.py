"""The command that makes plans, and what a plan has beside it: whether it still fits."""

import importlib.util
import json
import shutil

import make_plans
import pytest
from ram.cuda_device import Device
from ram.engine import RTX, Options, load_tensorrt
from ram.plan import FACTS, PLAN, PlanBuilder, PlanError, fits, install
from ram.repository import Repository, sha256

NO_TENSORRT = not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_bindings")))


def test_an_engine_of_tensorrt_rtx_never_becomes_a_plan(repository):
    device = Device("NVIDIA H100 80GB HBM3", "9.0")
    with pytest.raises(PlanError, match="Triton does not load them"):
        PlanBuilder(Repository(repository), load_tensorrt(RTX), device, Options())
    assert not list(repository.glob("*/1/*.plan"))


def test_without_a_gpu_the_graphs_can_be_tried(repository, capsys):
    assert make_plans.main(["--repository", str(repository), "--engine", "tensorrt_rtx"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["ram_encoder", "ram_head", "ram_open_head"]
    assert all("builds it for batches of 1 to 32, fastest at 16" in line for line in told[:2])
    assert "builds it for batches of 1 to 32, fastest at 1;" in told[2], "labels are its batch"
    assert not list(repository.glob("*/1/*plan*"))


def test_a_graph_that_does_not_fit_its_config_fails_the_trial(repository, tmp_path, capsys):
    copied = shutil.copytree(repository, tmp_path / "models")
    config = copied / "ram_head" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "logits"', 'name: "scores"'))
    assert make_plans.main(["--repository", str(copied), "--engine", "tensorrt_rtx"]) == 1
    said = capsys.readouterr().err
    assert said == f"make plans: {config}: the graph has no tensor 'scores'\n"


@pytest.mark.skipif(not NO_TENSORRT, reason="TensorRT is installed")
def test_without_tensorrt_one_line_says_where_to_find_it(repository, capsys):
    assert make_plans.main(["--repository", str(repository)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("make plans: TensorRT is missing: run this in the image of")


WANTED = {
    "graph_sha256": "1234",
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
        ({"tensorrt": "10.10.0.31"}, Options(), False),
        ({"gpu": "NVIDIA A10", "compute_capability": "8.6"}, Options(), False),
        ({"profiles": {"pixels": {"max": [64, 9]}}}, Options(), False),
        ({"precision": "bfloat16"}, Options(), False),
        # What was made with options stays while none are asked for, and the other way round not.
        ({"builder_level": 5}, Options(), True),
        ({}, Options(level=5), False),
        ({"version_compatible": True, "tensorrt": "10.3.0.26"}, Options(), True),
        ({"version_compatible": True, "tensorrt": "9.3.0.1"}, Options(), False),
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
