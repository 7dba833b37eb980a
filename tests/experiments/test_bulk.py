"""The measurement of bulk tagging: a short one, with kills."""

import pytest
from experiments import bulk
from ram_triton.cli import run_module


@pytest.mark.slow
def test_a_run_that_was_killed_has_the_rows_of_one_that_was_not(repository, capsys):
    options = ["--images", 120, "--size", 64, 48, "--trials", 1, "--kills", 3]
    arguments = ["--repository", repository, *options]
    assert run_module("experiments.bulk", bulk, list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    assert "120 rows, 0 missing, twice or misplaced, 0 other errors, 0 wrong scores" in printed
    assert "ram-bulk's share of closed loop's rate" in printed
