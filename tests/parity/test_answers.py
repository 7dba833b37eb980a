"""The one judge of answers: which tags and logits are right, near a threshold and elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from ram_client import Tag
from ram_triton.parity.answers import Bounds, find_wrong_logit, find_wrong_tag
from ram_triton.server_code import TagOptions, Vocabulary, select, sigmoid

NAMES = [f"tag {number}" for number in range(4)]
HALVES = Vocabulary(NAMES, ["一", "二", "三", "四"], np.full(4, 0.5, np.float32))
# The third is near its threshold: within the tolerance either is right.
SCORES = np.array([0.9, 0.8, 0.503, 0.1])
BOUNDS = Bounds.of_scores(SCORES, tolerance=0.005)


def tags(*ids, scores=SCORES, vocabulary=HALVES):
    named = [Tag(vocabulary.tags[id], vocabulary.tags_zh[id], scores[id], id) for id in ids]
    return sorted(named, key=lambda tag: -tag.score)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (tags(0, 1, 2), None),
        (tags(0, 1, scores=[0.904, 0.796]), None),
        (tags(0, 2), "'tag 1' is missing"),
        (tags(0, 1, 2, 3), "'tag 3' is too much"),
        (tags(0, 1, 2, scores=[0.91, 0.8, 0.503]), "'tag 0' has the score 0.91000, not 0.894"),
        (tags(0, 1, 2, scores=[float("nan"), 0.8, 0.503]), "'tag 0' has the score nan"),
        (tags(0, 1, 2)[::-1], "the tags are not in the order of their scores"),
        (tags(0, 0, 1, 2), "'tag 0' occurs twice"),
        ([replace(tags(0)[0], name="dog"), *tags(1, 2)], "tag 0 is called 'dog' (一), not 'tag 0'"),
        ([replace(tags(0)[0], name_zh="犬"), *tags(1, 2)], "tag 0 is called 'tag 0' (犬), not"),
        ([replace(tags(0)[0], id=4), *tags(1, 2)], "tag 4 does not exist: 4 tags are expected"),
        ([replace(tags(0)[0], id=-1), *tags(1, 2)], "tag -1 does not exist"),
        ([], "'tag 0' is missing"),
    ],
    ids=[
        *("same", "rounded", "missing", "extra", "score", "nan", "order", "twice", "name"),
        *("Chinese name", "id", "negative id", "none"),
    ],
)
def test_an_answer_must_be_the_expected_one_but_for_the_tolerance(answer, wrong):
    found = find_wrong_tag(answer, BOUNDS, HALVES)
    assert (found or "").startswith(wrong or "") and bool(found) == bool(wrong)


def test_the_requests_threshold_replaces_the_tags_own():
    assert find_wrong_tag(tags(0), BOUNDS, HALVES, TagOptions(threshold=0.85)) is None
    assert find_wrong_tag(tags(0, 1), BOUNDS, HALVES, TagOptions(threshold=0.803)) is None, (
        "near it"
    )
    assert find_wrong_tag(tags(0, 1), BOUNDS, HALVES, TagOptions(threshold=0.85)) == (
        "'tag 1' is too much"
    )


def test_of_top_k_only_tags_of_equal_scores_may_change_places():
    one = TagOptions(top_k=1)
    assert find_wrong_tag(tags(0), BOUNDS, HALVES, one) is None
    assert find_wrong_tag(tags(1), BOUNDS, HALVES, one) == "'tag 0' is missing"
    assert find_wrong_tag(tags(0, 1), BOUNDS, HALVES, one) == (
        "there are 2 tags, but at most 1 were asked for"
    )
    near = np.array([0.9, 0.895, 0.503, 0.1])
    bounds = Bounds.of_scores(near, 0.005)
    assert find_wrong_tag(tags(1, scores=near), bounds, HALVES, one) is None
    assert find_wrong_tag(tags(0), BOUNDS, HALVES, TagOptions(top_k=2)) == "'tag 1' is missing"


def test_excluded_tags_must_be_left_out():
    without = TagOptions(exclude=["TAG 1"])
    assert find_wrong_tag(tags(0, 2), BOUNDS, HALVES, without) is None
    assert find_wrong_tag(tags(0, 1, 2), BOUNDS, HALVES, without) == "'tag 1' is too much"


def test_names_and_thresholds_that_are_not_known_are_not_compared():
    unknown = Vocabulary(["", *NAMES[1:]], [""] * 4, np.array([np.nan, 0.5, 0.5, 0.5], np.float32))
    rest = [replace(tag, name_zh="") for tag in tags(1)]
    for answer in (rest, [*tags(0), *rest]):
        assert find_wrong_tag(answer, BOUNDS, unknown) is None


def test_in_bfloat16_another_pictures_answer_and_an_empty_one_are_wrong(vocabulary):
    # Scores a little above their thresholds, and pictures that differ by little.
    passing = np.log(vocabulary.thresholds[:-1] / (1 - vocabulary.thresholds[:-1]))
    pictures = [np.append(passing + offset, -9).astype(np.float32) for offset in (0.25, 0.55, 0.85)]

    def answer(logits):
        return tags(*select(logits, vocabulary)[0], scores=sigmoid(logits), vocabulary=vocabulary)

    for number, logits in enumerate(pictures):
        bounds = Bounds.of_logits(logits, tolerance=0.08)
        assert find_wrong_tag(answer(logits + np.float32(0.05)), bounds, vocabulary) is None
        others = [*pictures[:number], *pictures[number + 1 :], np.full_like(logits, -20)]
        for wrong in others:
            assert find_wrong_tag(answer(wrong), bounds, vocabulary)


def test_one_score_may_be_rounded_in_two_ways_but_not_more():
    bounds = Bounds.of_scores(SCORES)
    assert find_wrong_tag(tags(0, 1, 2, scores=SCORES + 5e-6), bounds, HALVES) is None
    assert find_wrong_tag(tags(0, 1, 2, scores=SCORES + 2e-5), bounds, HALVES)
    at_threshold = np.array([0.500001, 0.1, 0.1, 0.1])
    for answer in (tags(0, scores=at_threshold), []):
        assert find_wrong_tag(answer, Bounds.of_scores(at_threshold), HALVES) is None


def test_logits_may_differ_by_the_tolerance():
    expected = np.zeros((2, 3), np.float32)
    assert find_wrong_logit(expected, expected + np.float32(0.01), 0.02) is None
    for wrong in (0.03, np.nan, np.inf):
        changed = expected.copy()
        changed[1, 2] = wrong
        found = find_wrong_logit(expected, changed, 0.02)
        assert found and found.endswith("the limit is 0.02")
