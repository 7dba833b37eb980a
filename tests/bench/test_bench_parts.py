"""The benchmark's parts: what is a wrong answer, what its figures are of, what it runs on."""

import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from ram_triton.bench.answers import Reference
from ram_triton.bench.contest import Competitor, Round
from ram_triton.bench.device import Device
from ram_triton.bench.machine import peak_memory, resident_peak
from ram_triton.bench.result import Result
from ram_triton.bench.steps import ENGINES, Statistics
from ram_triton.bench.ways import GRPC, Served
from ram_triton.errors import ParityError
from ram_triton.parity.compare import FLOAT32
from ram_triton.parity.limits import LIMITS
from ram_triton.repository.layout import ENCODER, HEAD
from ram_triton.server_code import select


def test_p99_is_of_the_requests_of_all_rounds_together():
    one = Competitor("way", "float32", 1, 1, 1, ask=None, check=None)
    for slowest in (3.0, 5.0, 4.0):
        one.rounds.append(Round(2, 1.0, [0.002, slowest / 1000]))
    assert one.latency_of_all(0.99) == pytest.approx(5) and one.requests == 6
    assert one.latency(0.99).median == pytest.approx(4), "which a round's own would understate"


def test_tritons_own_time_is_told_round_by_round(tmp_path):
    turns = [
        Statistics(
            {name: 1 for name in ("ram", *ENGINES)},
            {("ram", "total"): total, **{(name, "infer"): 50 for name in ENGINES}},
        )
        for total in (110, 130)
    ]
    served = Served(GRPC, "float32", 1, 1, 1, ask=None, check=None, triton=None, turns=turns)
    result = Result({}, {}, {}, None, [served], None, (1, 1), [served], [], None, None)
    mark = result.marks()["Triton's own time, share of the engine's, batch of 1"]
    assert mark.values == pytest.approx((0.1, 0.3))


def answer_of(logits, vocabulary):
    """What the server makes of one picture's logits."""
    ids, scores = select(logits, vocabulary)
    names, _ = vocabulary.encoded
    return {
        "count": np.array([[len(ids)]]),
        "tag_ids": ids[None],
        "scores": scores[None],
        "tags": names[ids][None],
    }


def test_in_bfloat16_another_pictures_answer_and_an_empty_one_are_wrong(vocabulary):
    # Scores a little above their thresholds, and pictures that differ by little.
    passing = np.log(vocabulary.thresholds[:-1] / (1 - vocabulary.thresholds[:-1]))
    exact = np.stack([np.append(passing + offset, -9) for offset in (0.15, 0.45, 0.75)])
    exact = exact.astype(np.float32)
    served = Reference(exact, vocabulary).accept(GRPC, exact + 0.1, LIMITS["bfloat16"])
    for picture, logits in enumerate(exact + np.float32(0.1)):
        served.check_tags(GRPC, [picture], answer_of(logits + np.float32(0.05), vocabulary))
        for wrong in (*(exact[other] for other in range(3)), np.full_like(logits, -20)):
            with pytest.raises(ParityError):
                served.check_tags(GRPC, [picture], answer_of(wrong, vocabulary))
        with pytest.raises(ParityError, match=r"off by 0\.1"):
            served.check_logits("engine", [picture], exact[picture : picture + 1])


def test_a_server_with_other_tags_is_one_line(vocabulary):
    reference = Reference(np.zeros((2, 40), np.float32), vocabulary)
    with pytest.raises(ParityError, match="answers with 301 tags, the repository has 40"):
        reference.accept(GRPC, np.zeros((2, 301), np.float32), FLOAT32)


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
