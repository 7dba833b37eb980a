"""What sending pixels gains: a row per frame and way to send it."""

import pytest
from experiments import arrays
from ram_triton.cli import run_module


@pytest.mark.slow
def test_each_way_has_a_row_of_each_frame(repository, capsys, monkeypatch):
    monkeypatch.setattr(arrays, "SIZES", ((64, 48), (96, 54)))
    arguments = ["--repository", str(repository), "--rounds", "1", "--images", "4"]
    assert run_module("experiments.arrays", arrays, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    ways = [arrays.PNG, arrays.JPEG, arrays.PIXELS]
    assert [row[:2] for row in rows] == [
        [size, way] for size in ("64 x 48", "96 x 54") for way in ways
    ]
    assert all(float(cell) > 0 for row in rows for cell in row[3:])
