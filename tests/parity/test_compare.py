"""Figures of agreement: what is counted, and what is beyond the limits."""

import numpy as np
import pytest
from PIL import Image
from ram_triton.errors import ParityError, PictureError
from ram_triton.parity.compare import compare
from ram_triton.parity.limits import FLOAT32_LIMITS, Limits
from ram_triton.parity.pictures import BATCH_SIZES, noise_batches, picture_batches
from ram_triton.server_code import Vocabulary

HALF = np.float32(0.5)  # of a score: the logit 0


def vocabulary_of(*thresholds):
    names = [f"tag {index}" for index in range(len(thresholds))]
    return Vocabulary(names, names, np.array(thresholds, np.float32))


def agreement(expected, actual, *thresholds):
    logits = (np.array(rows, np.float32) for rows in (expected, actual))
    return compare(*logits, vocabulary_of(*thresholds))


def test_equal_logits_agree_fully():
    figures = agreement([[1, -1]], [[1, -1]], HALF, HALF)
    assert figures.as_dict() == {
        "images": 1,
        "largest_logit_difference": 0,
        "flipped_tags": 0,
        "largest_flip_distance": 0,
        "largest_flip_distance_score": 0,
        "tag_f1": 1,
    }
    figures.require(Limits(0, 0, 1))


def test_the_largest_logit_difference_is_over_all_images_and_tags():
    assert agreement([[0, 1], [2, 3]], [[0, 1.5], [1, 3]], 0, 0).largest_logit_difference == 1


def test_flips_are_counted_in_either_direction_with_their_distance_from_the_threshold():
    # The first tag is lost, the second is won; the third differs and stays.
    figures = agreement([[0.25, -0.5, 3]], [[-0.25, 0.5, 4]], HALF, HALF, HALF)
    assert figures.flipped_tags == 2
    assert figures.largest_flip_distance == 0.5
    assert figures.largest_flip_distance_score == pytest.approx(0.5 - 1 / (1 + np.exp(0.5)))


def test_the_distance_is_measured_from_the_tags_own_threshold():
    passing = np.log(0.9 / 0.1)
    figures = agreement([[passing + 0.01]], [[passing - 0.02]], 0.9)
    assert figures.largest_flip_distance == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_thresholds_without_a_finite_logit_give_finite_figures(threshold):
    figures = agreement([[-200.0], [200.0]], [[200.0], [-200.0]], threshold)
    assert np.isfinite(list(figures.as_dict().values())).all()


def test_tag_f1_takes_the_references_tags_for_the_truth():
    # Of three tags the candidate finds two, and one that is wrong: precision and recall 2/3.
    figures = agreement([[1, 1, 1, -1]], [[1, 1, -1, 1]], HALF, HALF, HALF, HALF)
    assert figures.tag_f1 == pytest.approx(2 / 3)


def test_without_any_tags_f1_is_1():
    assert agreement([[-1]], [[-2]], HALF).tag_f1 == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            Limits(0.4, 1, 0),
            "the plans differ from PyTorch: largest logit difference 0.5, the limit is 0.4",
        ),
        (
            Limits(1, 0.2, 0),
            "a tag flips whose logit is off its threshold by 0.25, the limit is 0.2",
        ),
        (Limits(1, 1, 0.9), "tag F1 0.667, the limit is 0.9"),
    ],
)
def test_each_figure_beyond_its_limit_is_named_with_the_limit(limits, message):
    figures = agreement([[0.25, 1]], [[-0.25, 1]], HALF, HALF)
    with pytest.raises(ParityError) as refused:
        figures.require(limits, "the plans")
    assert message in str(refused.value)
    figures.require(Limits(0.5, 0.25, 0.6))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_finite_numbers_are_beyond_all_limits(value):
    # In the first row: what comes after must not hide it.
    with pytest.raises(ParityError):
        agreement([[0], [0]], [[value], [0]], HALF).require(Limits(1e9, 1e9, 0))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_logits_of_another_vocabulary_or_number_of_images_cannot_be_compared(shape):
    with pytest.raises(ParityError, match="cannot be compared over 2 tags"):
        compare(np.zeros((2, 2), np.float32), np.zeros(shape, np.float32), vocabulary_of(0, 0))
    with pytest.raises(ParityError, match="cannot be compared"):
        compare(*[np.zeros((0, 2), np.float32)] * 2, vocabulary_of(0, 0))


def test_float32_leaves_no_room_for_other_weights():
    with pytest.raises(ParityError):
        agreement([[0]], [[0.01]], HALF).require(FLOAT32_LIMITS)


def test_every_picture_of_the_folder_is_used_once_in_batches_of_several_sizes(tmp_path):
    for level in range(11):
        suffix = (".png", ".JPG", ".webp")[level % 3]
        Image.new("RGB", (8, 8), (20 * level,) * 3).save(tmp_path / f"{level:02}{suffix}")
    (tmp_path / "notes.txt").write_text("no picture")
    batches = list(picture_batches(tmp_path, 4))
    assert {len(batch) for batch in batches} == set(BATCH_SIZES)
    levels = np.concatenate(batches)[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(levels, 20 * np.arange(11), atol=4)  # JPEG and WebP lose some


def test_a_folder_without_pictures_and_a_broken_picture_are_told(tmp_path):
    with pytest.raises(PictureError, match="contains no images"):
        list(picture_batches(tmp_path, 4))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"broken\.png: cannot be used"):
        list(picture_batches(tmp_path, 4))


def test_noise_is_the_same_each_time():
    first, second = (np.concatenate(list(noise_batches(8))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.uint8
    assert first.shape == (3, 8, 8, 3)
