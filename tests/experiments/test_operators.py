"""Where the engine's time goes: each kind of operator, products by their precision."""

import re

from experiments.operators import main


def test_operators_are_told_with_shares_that_add_up(repository, capsys):
    assert main(["--repository", str(repository), "--runs", "1"]) == 0
    told = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (.+) \| [\d.]+ \| ([\d.]+) \|$", told, re.M))
    assert rows.pop("all") == "1.000"
    assert abs(sum(map(float, rows.values())) - 1) < 0.02
    assert any(name.startswith("FullyConnected, ") for name in rows)


def test_a_folder_without_a_model_is_told_in_a_line(tmp_path, capsys):
    assert main(["--repository", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"measure_operators: {tmp_path}: holds no model\n"
