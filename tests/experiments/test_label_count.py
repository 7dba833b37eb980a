"""What labels cost: one row per number of labels, beside the fixed head."""

import pytest
from experiments import label_count
from ram_triton.cli import run_module


@pytest.mark.slow
def test_each_number_of_labels_has_a_row(capsys):
    arguments = ["--runs", "1", "--tags", "8", "--counts", "2", "8"]
    assert run_module("experiments.label_count", label_count, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:2] for row in rows] == [["fixed, 8", ""], ["2", "0.250"], ["8", "1.000"]]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])
