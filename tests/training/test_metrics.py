"""The figures are scikit-learn's, and thresholds are those of best F1."""

import numpy as np
import pytest
from ram_triton.training.evaluate import (
    best_thresholds,
    detect,
    mean_average_precision,
)
from ram_triton.vocabulary.tag_lists import (
    DEFAULT_THRESHOLD,
    read_vocabulary,
    write_names,
    write_thresholds,
)
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

IMAGES, TAGS, ABSENT = 80, 12, 5


@pytest.fixture(params=["distinct", "tied"])
def split(request):
    chance = np.random.default_rng(7)
    targets = chance.random((IMAGES, TAGS)) < 0.2
    targets[:, ABSENT] = False
    scores = np.clip(chance.random((IMAGES, TAGS)) * 0.7 + targets * 0.3, 0, 1).astype(np.float32)
    if request.param == "tied":
        scores = scores.round(1)
    return targets, scores


def present(targets):
    return np.flatnonzero(targets.any(axis=0))


def test_the_mean_average_precision_is_over_the_tags_that_some_image_has(split):
    targets, scores = split
    expected = [average_precision_score(targets[:, t], scores[:, t]) for t in present(targets)]
    assert len(expected) == TAGS - 1
    assert mean_average_precision(targets, scores) == pytest.approx(np.mean(expected), rel=1e-12)


def test_without_any_right_tag_the_mean_is_no_number():
    assert np.isnan(mean_average_precision(np.zeros((3, 2), bool), np.zeros((3, 2))))


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_precision_recall_and_f1_are_scikit_learns(split, average):
    targets, scores = split
    shown = scores > 0.6
    kept = slice(None) if average == "micro" else present(targets)
    *expected, _ = precision_recall_fscore_support(
        targets[:, kept], shown[:, kept], average=average, zero_division=0
    )
    found = detect(targets, shown)[average]
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected, rel=1e-12)


def test_nothing_shown_is_no_error():
    found = detect(np.ones((2, 2), bool), np.zeros((2, 2), bool))["macro"]
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)


def test_no_right_tag_is_no_error():
    found = detect(np.zeros((2, 2), bool), np.ones((2, 2), bool))
    assert {(one.precision, one.recall, one.f1) for one in found.values()} == {(0, 0, 0)}


def test_of_a_single_tag_only_its_presence_counts():
    targets = np.array([[True], [False], [False], [True]])
    shown = np.array([[True], [True], [False], [False]])
    for found in detect(targets, shown).values():
        assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    scores = np.array([[0.9], [0.8], [0.1], [0.2]])
    assert mean_average_precision(targets, scores) == pytest.approx((1 + 2 / 3) / 2)


def test_no_other_threshold_has_a_better_f1(split):
    targets, scores = split
    thresholds = best_thresholds(targets, scores, fewest=1)
    for tag in present(targets):
        tried = [f1_score(targets[:, tag], scores[:, tag] > t) for t in np.linspace(0, 1, 21)]
        found = f1_score(targets[:, tag], scores[:, tag] > thresholds[tag])
        assert found >= max(tried) - 1e-12


def test_a_threshold_lies_halfway_between_the_scores_it_parts():
    targets = np.array([[True], [True], [False]])
    assert best_thresholds(targets, np.array([[0.9], [0.6], [0.2]]), fewest=1) == pytest.approx(0.4)


def test_tags_of_too_few_images_share_the_threshold_that_is_best_for_all_tags(split):
    targets, scores = split
    counts = targets.sum(axis=0)
    fewest = int(np.median(counts))
    thresholds = best_thresholds(targets, scores, fewest)
    (shared,) = set(thresholds[counts < fewest].tolist())
    assert thresholds[ABSENT] == np.float32(shared)
    tried = [f1_score(targets, scores > t, average="micro") for t in np.linspace(0, 1, 101)]
    assert f1_score(targets, scores > shared, average="micro") >= max(tried) - 1e-12
    np.testing.assert_array_equal(
        thresholds[counts >= fewest], best_thresholds(targets, scores, 1)[counts >= fewest]
    )


def test_without_any_right_tag_thresholds_are_the_references():
    thresholds = best_thresholds(np.zeros((3, 2), bool), np.zeros((3, 2)))
    assert (thresholds == np.float32(DEFAULT_THRESHOLD)).all()


def test_thresholds_are_written_as_the_vocabulary_reads_them(tmp_path):
    write_names(["cat", "dog"], ["猫", "狗"], tmp_path)
    write_thresholds([0.25, 0.68], tmp_path)
    assert read_vocabulary(tmp_path, 2).thresholds == pytest.approx([0.25, 0.68])
    assert len(list(tmp_path.iterdir())) == 3, "nothing unfinished is left behind"
