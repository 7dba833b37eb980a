"""Which tags are chosen, and how they are laid out: against a brute-force rewrite."""

import math

import numpy as np
import pytest
from ram_triton.server_code import RequestError, TagOptions, Vocabulary, postprocess


def brute_force(logits, vocabulary, options):
    """One image, tag by tag, in plain Python."""
    chosen = []
    for index, logit in enumerate(logits.tolist()):
        names = {vocabulary.tags[index].casefold(), vocabulary.tags_zh[index].casefold()}
        score = np.float32(1 / (1 + math.exp(-logit)))
        own = vocabulary.thresholds[index]
        threshold = own if options.threshold is None else np.float32(options.threshold)
        excluded = {name.strip().casefold() for name in options.exclude if name}
        if score > threshold and not names & excluded:
            chosen.append((-logit, index))
    chosen.sort()
    return [index for _, index in chosen][: options.top_k or None]


@pytest.fixture
def logits():
    return np.random.default_rng(1).normal(0, 2, (5, 40)).astype(np.float32)


def only(outputs, row):
    return outputs["tag_ids"][row][: outputs["count"][row, 0]].tolist()


@pytest.mark.parametrize(
    "options",
    [
        TagOptions(),
        TagOptions(threshold=0.0),
        TagOptions(threshold=0.5),
        TagOptions(threshold=1.0),
        TagOptions(top_k=3),
        TagOptions(threshold=0.2, top_k=7, exclude=["tag 1", "标签2", " TAG 3 ", ""]),
    ],
    ids=str,
)
def test_tags_are_those_of_a_brute_force_rewrite(logits, vocabulary, options):
    outputs = postprocess(logits, vocabulary, [options] * len(logits))
    for row, values in enumerate(logits):
        assert only(outputs, row) == brute_force(values, vocabulary, options)


def test_each_image_of_a_batch_has_its_own_options(logits, vocabulary):
    wishes = [
        TagOptions(),
        TagOptions(top_k=1),
        TagOptions(threshold=0.9),
        TagOptions(exclude=["tag 0"]),
        TagOptions(threshold=0.0),
    ]
    outputs = postprocess(logits, vocabulary, wishes)
    for row, wish in enumerate(wishes):
        assert only(outputs, row) == brute_force(logits[row], vocabulary, wish)


def test_rows_are_padded_to_the_longest_and_counted(vocabulary):
    logits = np.full((3, 40), -9, np.float32)
    logits[1, [4, 2]] = 3, 5
    outputs = postprocess(logits, vocabulary, [TagOptions()] * 3)
    assert outputs["count"].tolist() == [[0], [2], [0]]
    assert outputs["tags"].tolist() == [[b"", b""], [b"tag 2", b"tag 4"], [b"", b""]]
    assert outputs["tags_zh"][1].tolist() == ["标签2".encode(), "标签4".encode()]
    assert outputs["tag_ids"].tolist() == [[-1, -1], [2, 4], [-1, -1]]
    assert outputs["scores"][0].tolist() == [0, 0]
    assert {name: array.dtype for name, array in outputs.items()} == {
        "tags": object,
        "tags_zh": object,
        "scores": np.float32,
        "tag_ids": np.int32,
        "count": np.int32,
    }


def test_a_batch_without_any_tag_has_rows_of_no_length(vocabulary):
    outputs = postprocess(np.full((2, 40), -9, np.float32), vocabulary, [TagOptions()] * 2)
    assert outputs["tags"].shape == (2, 0)


def test_a_score_must_exceed_its_threshold_and_1_is_never_exceeded(vocabulary):
    logits = np.zeros((1, 40), np.float32)
    assert postprocess(logits, vocabulary, [TagOptions(threshold=0.5)])["count"] == 0
    logits[:] = 200
    assert 39 not in postprocess(logits, vocabulary, [TagOptions()])["tag_ids"]


def test_scores_too_close_for_float32_are_still_ordered_by_logit(vocabulary):
    logits = np.full((1, 40), -50, np.float32)
    logits[0, [5, 6, 7]] = 30, 32, 31
    outputs = postprocess(logits, vocabulary, [TagOptions()])
    assert outputs["tag_ids"].tolist() == [[6, 7, 5]]
    assert outputs["scores"].tolist() == [[1, 1, 1]]


def test_an_excluded_chinese_name_drops_every_tag_that_has_it(vocabulary):
    logits = np.full((1, 40), 9, np.float32)
    ids = postprocess(logits, vocabulary, [TagOptions(exclude=["标签3"])])["tag_ids"]
    assert not {3, 7} & set(ids[0].tolist())


@pytest.mark.parametrize("threshold", [math.nan, -0.1, 1.1, math.inf])
def test_a_threshold_outside_0_to_1_is_refused_by_name(threshold):
    with pytest.raises(RequestError, match=r"^threshold: .* is not between 0 and 1$"):
        TagOptions(threshold=threshold)


def test_a_negative_top_k_is_refused_by_name():
    with pytest.raises(RequestError, match=r"^top_k: -1 is negative$"):
        TagOptions(top_k=-1)


def test_an_unknown_tag_to_exclude_is_refused_with_the_closest_names(logits, vocabulary):
    with pytest.raises(RequestError, match=r"^exclude: unknown tag 'tag 4O'; did you mean 'tag 4'"):
        postprocess(logits, vocabulary, [TagOptions(exclude=["tag 4O"])] * 5)


def test_a_name_that_is_not_utf8_is_refused_by_input():
    with pytest.raises(RequestError, match=r"^exclude: .* is not UTF-8$"):
        TagOptions.read({"exclude": np.array([[b"\xff"]], object)}, 1)


def test_logits_that_overflowed_are_an_error_instead_of_no_tags(logits, vocabulary):
    logits[2, 2] = np.nan
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        postprocess(logits, vocabulary, [TagOptions()] * 5)


@pytest.mark.parametrize("width", [39, 41])
def test_logits_of_another_vocabulary_are_an_error_whatever_the_options(vocabulary, width):
    with pytest.raises(ValueError, match=f"{width} tags, but the vocabulary has 40"):
        postprocess(np.zeros((1, width), np.float32), vocabulary, [TagOptions(threshold=0.5)])


def test_a_saved_vocabulary_is_read_back_as_it_was(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.json")
    copy = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (copy.tags, copy.tags_zh) == (vocabulary.tags, vocabulary.tags_zh)
    np.testing.assert_array_equal(copy.thresholds, vocabulary.thresholds)
