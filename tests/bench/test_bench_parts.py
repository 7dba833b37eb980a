"""The benchmark's parts: its measurements, what is a wrong answer, what it runs on."""

import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from ram_triton.bench.candidates import (
    GRPC,
    Candidate,
    Expected,
    Round,
    TritonCandidate,
    run_rounds,
)
from ram_triton.bench.machine import Device, peak_memory
from ram_triton.bench.measurement import (
    Measurement,
    interleave,
    processor_clock,
    time_interleaved,
)
from ram_triton.bench.report import OVER_ENGINE, Result
from ram_triton.bench.triton_steps import ENGINES, Statistics
from ram_triton.errors import ParityError
from ram_triton.parity.limits import FLOAT32_LIMITS, HALF_LIMITS
from ram_triton.processes import resident_peak
from ram_triton.repository.layout import ENCODER, HEAD


def candidate(name="way", batch=1, check=None):
    return Candidate(
        name, "float32", batch, 1, 3, ask=lambda numbers: numbers, check=check or (lambda *_: None)
    )


def test_a_measurement_is_its_median_with_its_spread_if_it_has_one():
    assert str(Measurement((1.0, 30.0, 2.5))) == "2.50 (1.00 to 30.0)"
    assert str(Measurement((1234.5,))) == "1234"
    ratio = Measurement((1.0, 4.0)).over(Measurement((2.0, 2.0)))
    assert ratio.values == (0.5, 2.0) and ratio.lowest == 0.5 and ratio.highest == 2.0


def test_each_round_has_every_item_once_in_an_order_of_its_own():
    items = list("abcdefgh")
    turns = list(interleave(items, 3, np.random.default_rng(0)))
    rounds = [[item for number, item in turns if number == wanted] for wanted in (1, 2, 3)]
    assert all(sorted(each) == items for each in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_ways_are_timed_for_equally_long_after_a_warm_up():
    cost = {"slow": 0.004, "fast": 0.001}
    calls = []

    def clock(name, times):
        calls.append((name, times))
        return times * cost[name]

    ways = dict(zip(cost, cost, strict=True))
    random = np.random.default_rng(0)
    taken = time_interleaved(ways, 2, random, clock=clock, seconds=0.02)
    assert calls[:6] == [("slow", 1)] * 3 + [("fast", 1)] * 3
    assert sorted(calls[6:8]) == sorted(calls[8:]) == [("fast", 20), ("slow", 5)]
    assert {name: each.median for name, each in taken.items()} == {
        "slow": pytest.approx(4),
        "fast": pytest.approx(1),
    }


def test_the_clock_counts_every_run():
    runs = []
    assert processor_clock(lambda: runs.append(1), 7) > 0
    assert len(runs) == 7


def test_candidates_warm_up_uncounted_and_answer_about_all_pictures_in_turn():
    asked = []
    one, other = candidate("one", batch=2), candidate("other")
    one.ask = asked.append
    shown = []
    run_rounds(
        [one, other], 2, 0, np.random.default_rng(0), lambda each, n: shown.append((n, each.name))
    )
    assert shown[:2] == [(0, "one"), (0, "other")]
    assert sorted(shown[2:]) == [(1, "one"), (1, "other"), (2, "one"), (2, "other")]
    assert len(one.rounds) == len(other.rounds) == 2 and one.requests == 2
    assert asked == [[0, 1]] * 3


def test_a_wrong_answer_ends_the_measurement_by_the_candidates_name():
    wrong = candidate("engine alone", check=lambda numbers, answer: "'cat' is missing")
    with pytest.raises(ParityError, match="engine alone: a wrong answer: 'cat' is missing"):
        wrong.run(0)


def test_p99_is_of_the_requests_of_all_rounds_together():
    one = candidate()
    for slowest in (3.0, 5.0, 4.0):
        one.rounds.append(Round(2, 1.0, [0.002, slowest / 1000]))
    assert one.latency_of_all(0.99) == pytest.approx(5) and one.requests == 6
    assert one.latency(0.99).median == pytest.approx(4), "which a round's own would understate"


def test_tritons_own_time_is_shown_round_by_round():
    turns = [
        Statistics(
            {name: 1 for name in ("ram", *ENGINES)},
            {("ram", "total"): total, **{(name, "infer"): 50 for name in ENGINES}},
        )
        for total in (110, 130)
    ]
    served = TritonCandidate(
        GRPC, "float32", 1, 1, 1, ask=None, check=None, deployment=None, statistics=turns
    )
    nothing = Measurement((1.0,))
    result = Result({}, {}, {}, None, [served], None, (1, 1), [served], [], nothing, None)
    (mark,) = (mark for mark in result.marks() if mark.name == OVER_ENGINE)
    assert mark.batch == 1 and mark.value.values == pytest.approx((0.1, 0.3))
    assert result.engine_milliseconds() == pytest.approx(100 / 1e6)


def test_a_candidate_has_to_repeat_its_own_answers_far_closer_than_pytorchs():
    exact = np.zeros((2, 3), np.float32)
    limits = HALF_LIMITS["bfloat16"]
    expected = Expected.accept("engine", exact, exact + np.float32(0.1), limits)
    assert expected.tolerance == pytest.approx(0.1 * limits.logit_difference)
    assert expected.find_wrong_logit([1], exact[:1] + np.float32(0.15)) is None
    assert expected.find_wrong_logit([1], exact[:1]).startswith("a logit is off by 0.1")
    with pytest.raises(ParityError, match=r"engine: a wrong answer: a logit is off by 0\.1"):
        Expected.accept("engine", exact, exact + np.float32(0.1), FLOAT32_LIMITS)


def test_a_server_with_other_tags_is_one_line():
    exact = np.zeros((2, 40), np.float32)
    with pytest.raises(ParityError, match="answers with 301 tags, the repository has 40"):
        Expected.accept(GRPC, exact, np.zeros((2, 301), np.float32), FLOAT32_LIMITS)


def test_memory_of_a_process_that_has_ended_is_not_asked_for():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            resident_peak(process.pid)  # not waited for yet
    assert peak_memory(SimpleNamespace(process_group=process.pid)) == 0


def test_all_is_on_the_gpu_or_nothing(repository, tmp_path, monkeypatch):
    assert Device.choose(repository, "gpu:8001").name == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert "server started here is on the CPU" in Device.choose(repository, None).unused
    assert Device.choose(repository, "gpu:8001") == Device(
        "cpu", f"{repository} lacks plans, which 'make plans' makes"
    )
    for graph in (ENCODER, HEAD):
        (tmp_path / graph).parent.mkdir(parents=True)
        (tmp_path / graph).with_name("model.plan").touch()
    assert Device.choose(tmp_path, "gpu:8001") == Device("cuda")
