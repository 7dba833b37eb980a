"""What labels and heat maps cost: a row per graph, and per kind of request."""

import pytest
from experiments import head_cost
from ram_triton.cli import run_module


@pytest.mark.slow
def test_graphs_and_requests_are_timed(repository, capsys, monkeypatch):
    for name, value in {"TAGS": 300, "LABELS": (2, 300), "SECONDS": 0.02}.items():
        monkeypatch.setattr(head_cost, name, value)
    arguments = ["--repository", str(repository), "--runs", "1"]
    assert run_module("experiments.head_cost", head_cost, arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    labels = [f"with {count} labels" for count in (2, 300)]
    maps = [f"maps of {count} tags" for count in head_cost.MAPS]
    requests = ["request", "-" * 13, "tags", "tags and maps"]
    assert rows[0] == ["graph", "ms", "of 'the head'"]
    assert rows[-4] == ["request", "ms", "of 'tags'"]
    assert [row[0] for row in rows] == ["graph", "-" * 16, "the head", *labels, *maps, *requests]
    for place, (_, *cells) in enumerate(rows):
        if place not in (0, 1, len(rows) - 4, len(rows) - 3):
            assert all(float(cell) > 0 for cell in cells)
