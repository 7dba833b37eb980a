"""What heat maps cost: a row per graph, and per kind of request."""

import pytest
from experiments import map_cost
from ram_triton.cli import run_module


@pytest.mark.slow
def test_graphs_and_requests_are_timed(repository, capsys):
    arguments = ["--repository", str(repository), "--runs", "1", "--tags", "300", "--images", "2"]
    assert run_module("experiments.map_cost", map_cost, arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = ["the head", *(f"maps of {count} tags" for count in map_cost.COUNTS)]
    requests = ["request", "-" * 13, "tags", "tags and maps"]
    assert [row[0] for row in rows] == ["graph", "-" * 16, *names, *requests]
