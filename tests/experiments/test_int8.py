"""INT8 on the CPU beside the other precisions: the table of their speed."""

import sys

import pytest
from experiments import int8 as measure_int8

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_precision_has_its_speed(checkpoint, capsys):
    assert measure_int8.main(["--checkpoint", str(checkpoint), "--repeats", "1"]) == 0
    told = capsys.readouterr().out
    assert "calibrated on 7 pictures" in told
    assert "│ float32" in told and "│ INT8, the rest" in told


def test_without_nncf_one_line_says_how_to_install_it(checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert measure_int8.main(["--checkpoint", str(checkpoint)]) == 1
    assert capsys.readouterr().err == (
        "measure_int8: NNCF is missing: 'make .venv/.installed-int8' installs it\n"
    )


def test_a_config_that_is_missing_is_told_in_one_line(checkpoint, tmp_path, capsys):
    missing = tmp_path / "none.toml"
    assert measure_int8.main(["--checkpoint", str(checkpoint), "--config", str(missing)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("measure_int8: ") and str(missing) in said and said.count("\n") == 1
