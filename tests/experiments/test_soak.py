"""The soak: a short one, in which a process is killed, finds nothing wrong."""

import pytest
from experiments import soak
from ram_triton.cli import run_module


def test_a_request_that_a_kill_may_have_ended_is_expected_to_fail():
    record = soak.Record(kills=[100.0])
    for second, status in ((99.8, "Unavailable"), (99.0, "Unavailable"), (99.8, "wrong")):
        record.answers.append((second, 0.3, status))
    assert record.unexpected() == {"Unavailable": 1, "wrong": 1}


@pytest.mark.slow
def test_it_reports_kills_drift_and_that_every_answer_was_right(repository, capsys):
    arguments = ["--repository", repository, "--minutes", 0.3, "--rate", 4, "--kill-every", 0.1]
    status = run_module("experiments.soak", soak, list(map(str, arguments)))
    told = capsys.readouterr().out
    assert status == 0, told
    assert "4.0 requests/s for 0.3 minutes" in told
    assert "without a kill before it: all right" in told
    assert "killed: 0" not in told
    for name in ("memory", "shared", "descriptors", "threads"):
        assert f"\n{name}: " in told
