"""Where the engine's time goes: each kind of operator, products by their precision."""

import re

from experiments import operators
from ram_triton.cli import run_module


def test_the_operators_shares_add_up(repository, capsys):
    arguments = ["--repository", str(repository), "--runs", "1"]
    assert run_module("experiments.operators", operators, arguments) == 0
    table = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (.+?) +\| +[\d.]+ +\| ([\d.]+) +\|$", table, re.M))
    assert rows.pop("all") == "1.000"
    assert abs(sum(map(float, rows.values())) - 1) < 0.02
    assert any(name.startswith("FullyConnected, ") for name in rows)


def test_a_folder_without_a_model_is_one_line(tmp_path, capsys):
    arguments = ["--repository", str(tmp_path)]
    assert run_module("experiments.operators", operators, arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"experiments.operators: {tmp_path}: contains no model")
