"""The measurement of Ray Data with a server and without one: a short one."""

import pytest
from ram_triton.cli import run_module


@pytest.mark.slow
def test_all_ways_tag_all_images(repository, capsys):
    pytest.importorskip("ray")
    from experiments import ray_data

    options = ["--images", 96, "--size", 64, 48, "--rounds", 1]
    arguments = list(map(str, ["--repository", repository, *options]))
    assert run_module("experiments.ray_data", ray_data, arguments) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 6
    for line in table[2:]:
        _, _, rate, start, _ = line.split("|")
        assert float(rate) > 0 < float(start)
