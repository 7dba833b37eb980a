"""INT8 on the CPU beside the other precisions: the table of their speed."""

import sys

import pytest
from experiments import int8
from ram_triton.cli import run_module

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments):
    return run_module("experiments.int8", int8, list(map(str, arguments)))


@pytest.mark.slow
def test_each_precision_has_its_speed(checkpoint, capsys):
    assert run("--checkpoint", checkpoint, "--repeats", 1) == 0
    table = capsys.readouterr().out
    assert "calibrated on 7 pictures" in table
    assert "| float32 " in table and "| INT8, the rest" in table


def test_without_nncf_one_line_says_how_to_install_it(checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert run("--checkpoint", checkpoint) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("experiments.int8: NNCF is missing: ")


def test_a_config_that_is_missing_is_one_line(checkpoint, tmp_path, capsys):
    missing = tmp_path / "none.toml"
    assert run("--checkpoint", checkpoint, "--config", missing) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("experiments.int8: ") and str(missing) in line
