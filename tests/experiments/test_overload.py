"""The overload: a short one is answered, refused or told, and nothing else."""

import json

import pytest
from experiments import overload
from ram_triton.cli import run_module


@pytest.mark.slow
def test_beyond_its_capacity_the_server_answers_some_and_refuses_the_rest(
    repository, tmp_path, capsys
):
    results = tmp_path / "results.json"
    arguments = ["--repository", repository, "--factors", 4, "--seconds", 4, "--calibration", 1]
    run_module("experiments.overload", overload, [*map(str, arguments), "--json", str(results)])
    # What it says of the marks depends on what else the machine does.
    assert "4 times: " in capsys.readouterr().out
    (found,) = json.loads(results.read_text())
    assert set(found["statuses"]) == {overload.RIGHT, overload.REFUSED}
    assert sum(found["statuses"].values()) == found["sent"]
    assert found["share"] > 0.2
    assert found["recovery"] < 30
    assert found["memory"][0] < 500
