"""The load test's parts: which answers are right, when requests are due, where the knee is."""

import os
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
from arrivals import due_times
from expected import MAX_PAIRS, Expected, WrongAnswer
from knee import KneeSearch
from limits import Figures, Limits
from options import add_options, problem
from pictures import Picture, make_broken, make_mixed
from ram_client import InvalidRequest, ServerError, Tag
from traffic import Kind, Request


@pytest.fixture
def pictures():
    return [Picture("cat.jpg", b"cat"), Picture("dog.jpg", b"dog")]


def tags(scores, *ids):
    named = [Tag(f"tag {id}", f"标签{id}", scores[id], id) for id in ids]
    return sorted(named, key=lambda tag: -tag.score)


CAT = [0.9, 0.8, 0.503, 0.1]
DOG = [0.1, 0.2, 0.9, 0.8]


@pytest.fixture
def expected(pictures):
    """All thresholds are 0.5: tag 2 of the cat is the one that rounding may decide."""
    cat, dog = (picture.sha256 for picture in pictures)
    return Expected(
        tolerance=0.005,
        thresholds=np.full(4, 0.5, np.float32),
        scores={cat: np.array(CAT), dog: np.array(DOG)},
        answers={
            cat: {"plain": tags(CAT, 0, 1, 2), "top_k 1": tags(CAT, 0)},
            dog: {"plain": tags(DOG, 2, 3), "top_k 1": tags(DOG, 2)},
        },
        names={cat: "cat.jpg", dog: "dog.jpg"},
    )


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (tags(CAT, 0, 1, 2), None),
        (tags([0.904, 0.796, 0.499, 0.1], 0, 1), None),
        (tags(CAT, 0, 2), "'tag 1' is missing"),
        (tags(CAT, 0, 1, 2, 3), "'tag 3' is too much"),
        (tags([0.91, 0.8, 0.503], 0, 1, 2), "'tag 0' has another score"),
        (tags([float("nan"), 0.8, 0.503], 0, 1, 2), "'tag 0' has another score"),
        (tags(CAT, 0, 1, 2)[::-1], "the tags are not in the order of their scores"),
        (tags(CAT, 0, 0, 1, 2), "a tag stands there twice"),
        ([replace(tags(CAT, 0)[0], name="dog"), *tags(CAT, 1, 2)], "is called 'dog'"),
        (tags(DOG, 2, 3), "swapped, this is the answer of dog.jpg"),
    ],
    ids=["same", "rounded", "missing", "extra", "score", "nan", "order", "twice", "name", "swap"],
)
def test_an_answer_must_be_that_of_before_but_for_rounding(expected, pictures, answer, fault):
    found = expected.fault(Request(Kind("plain"), pictures[:1]), [answer])
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


def test_the_last_of_top_k_may_change_places_with_an_equal_one(expected, pictures):
    top_k = Request(Kind("top_k", {"top_k": 1}), pictures[:1])
    assert expected.fault(top_k, [tags(CAT, 1)])
    expected.scores[pictures[0].sha256][1] = 0.895
    assert expected.fault(top_k, [tags([0.9, 0.895], 1)]) is None
    assert "more tags than asked for" in str(expected.fault(top_k, [tags([0.9, 0.895], 0, 1)]))


def test_swapped_rows_of_a_batch_are_noticed(expected, pictures):
    batch = Request(Kind("batch", images=2), pictures)
    right = [tags(CAT, 0, 1, 2), tags(DOG, 2, 3)]
    assert expected.fault(batch, right) is None
    assert "swapped" in str(expected.fault(batch, right[::-1]))
    assert "1 rows for 2 images" in str(expected.fault(batch, right[:1]))


def test_answers_to_labels_are_compared_with_those_to_labels(expected, pictures):
    cat = pictures[0].sha256
    expected.open = Expected(
        0.005,
        None,
        {cat: np.array([0.9, 0.8])},
        {cat: {"plain": tags(CAT, 0, 1)}},
        {cat: "cat.jpg"},
        ["tag 0", "tag 1"],
    )
    request = Request(Kind("open", labels=["tag 0", "tag 1"]), pictures[:1])
    assert request.kind.label == "open with 2 labels"
    assert expected.fault(request, [tags(CAT, 0, 1)]) is None
    assert "'tag 1' is missing" in str(expected.fault(request, [tags(CAT, 0)]))
    assert "'tag 2' has another score" in str(expected.fault(request, [tags(CAT, 0, 1, 2)]))


def test_a_broken_image_has_to_be_refused_by_its_name(expected, pictures):
    broken = Request(Kind("broken", refused=True), pictures[:1])
    assert expected.fault(broken, InvalidRequest("image: not an image")) is None
    assert isinstance(expected.fault(broken, [tags(CAT, 0)]), WrongAnswer)
    assert isinstance(expected.fault(broken, ServerError("stub died")), ServerError)


def test_an_error_in_place_of_an_answer_is_a_failure(expected, pictures):
    error = ServerError("out of memory")
    assert expected.fault(Request(Kind("plain"), pictures[:1]), error) is error


def test_expected_answers_survive_a_file(expected, pictures, tmp_path):
    expected.save(tmp_path / "expected.json")
    read = Expected.load(tmp_path / "expected.json", tolerance=0.005)
    assert read.as_dict() == expected.as_dict()
    assert read.alike() == (0, 1)


def test_pictures_are_made_of_mixed_sizes_and_formats_and_broken_ones_are_none():
    pictures = make_mixed()
    assert {Path(picture.name).suffix for picture in pictures} == {".jpg", ".png", ".webp"}
    assert len({picture.sha256 for picture in pictures}) == len(pictures)
    broken = make_broken(pictures)
    assert {picture.sha256 for picture in broken}.isdisjoint(p.sha256 for p in pictures)


def test_arrivals_come_at_their_rate_step_by_step_whoever_sends_them():
    alone = list(islice(due_times([10, 20], 1.0, start=100.0), 30))
    np.testing.assert_allclose(alone[:11], 100 + np.arange(11) / 10)
    np.testing.assert_allclose(np.diff(alone[10:]), 1 / 20)
    shares = [list(islice(due_times([10, 20], 1.0, 100.0, (n, 3)), 10)) for n in range(3)]
    assert sorted(chain(*shares)) == pytest.approx(alone)


@pytest.mark.parametrize("knee", [1.5, 7, 90, 1000])
def test_the_search_encloses_the_knee(knee):
    search = KneeSearch(start=1, maximum=500, precision=0.1)
    while rate := search.rate():
        search.found(rate, rate <= knee)
    assert search.good == (500 if knee > 500 else pytest.approx(knee, rel=0.1))
    assert search.good <= knee
    assert search.bad is None or knee < search.bad <= 1.1 * search.good


def test_a_run_without_any_request_keeps_no_limit():
    assert not all(kept for kept, _ in Limits().verdict(Figures(0, 0, float("nan"), 0)))


def test_of_many_pictures_a_part_of_the_pairs_is_compared(expected, pictures):
    cat = pictures[0].sha256
    for index in range(200):
        for values in (expected.scores, expected.answers, expected.names):
            values[f"cat {index}"] = values[cat]
    alike, pairs = expected.alike()
    assert pairs == MAX_PAIRS
    assert 0 < alike <= pairs


class Parser(ArgumentParser):
    """Takes what locust's own parser takes; to import locust would change this process."""

    def add_argument(self, *names, include_in_web_ui=True, **keywords):
        return super().add_argument(*names, **keywords)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--max-failures 5", "--max-failures is a share between 0 and 1: 0.05 are 5 %"),
        ("--max-failures=-1", "--max-failures is a share between 0 and 1: 0.05 are 5 %"),
        ("--max-p99=-1", "--max-p99 must not be below 0"),
        ("--max-p99 nan", "--max-p99 must not be below 0"),
        ("--min-throughput=-1", "--min-throughput must not be below 0"),
        ("--tolerance=-1", "--tolerance must not be below 0"),
        ("--batch 64", "--batch must be between 2 and 32, the server's largest"),
        (
            "--ramp --max-p99 9 --min-throughput 1",
            "--ramp judges rates by --max-p99 and --max-failures: leave out --min-throughput",
        ),
        ("--max-failures 0.05 --max-p99 500 --batch 32", None),
    ],
)
def test_limits_that_cannot_be_meant_are_told(options, line):
    parser = Parser()
    add_options(parser)
    assert problem(parser.parse_args(options.split())) == line


def test_latencies_are_kept_in_four_digits():
    """Locust keeps two: 104.9 ms would pass for 100."""
    code = """
from types import SimpleNamespace
from locust.env import Environment
from percentiles import Counts, Latencies

environment = Environment()
environment.create_local_runner()
environment.ram = SimpleNamespace(latencies=Latencies(environment))
for _ in range(10):
    environment.events.request.fire(request_type="gRPC", name="plain", response_time=104.94,
                                    response_length=0, exception=None, context={})
print(Counts.of(environment).figures(1.0).p99)
"""
    loadtest = Path(__file__).parents[2] / "loadtest"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=loadtest,
        env={**os.environ, "PYTHONPATH": str(loadtest)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "104.9\n"
