"""What may stand in a training set, and that every mistake in one is told with its line."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from ram_triton.errors import ConfigError, ManifestError
from ram_triton.training.config import Data
from ram_triton.training.manifest import read_samples

TAGS, TAGS_ZH = ["cat", "dog", "tree"], ["猫", "狗", "树"]


def read(vocabulary, **where):
    return read_samples(Data(vocabulary=vocabulary, **where), TAGS, TAGS_ZH)


def read_lines(folder, *lines, **where):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "data.jsonl").write_text("\n".join(texts), "utf-8")
    return read(folder, manifest=folder / "data.jsonl", **where)


def problems_of(folder, *lines, **where):
    with pytest.raises(ManifestError) as caught:
        read_lines(folder, *lines, **where)
    return [problem.removeprefix(f"{folder / 'data.jsonl'}, ") for problem in caught.value.problems]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    return tmp_path


def test_a_line_names_an_image_its_tags_caption_and_split(folder):
    line = {"image": "good.png", "tags": ["tree", "cat"], "caption": "a cat", "split": "train"}
    (sample,) = read_lines(folder, line)
    assert sample.image == folder / "good.png"
    assert (sample.tags, sample.caption, sample.split) == ((0, 2), "a cat", "train")


def test_chinese_tags_stand_for_english_ones(folder):
    (sample,) = read_lines(folder, {"image": "good.png", "tags_zh": ["树"]})
    assert sample.tags == (2,)


def test_an_image_may_have_no_tags(folder):
    (sample,) = read_lines(folder, {"image": "good.png", "tags": []})
    assert sample.tags == ()


def test_an_index_stands_for_an_image_of_an_array(folder):
    np.save(folder / "images.npy", np.zeros((2, 8, 8, 4), np.uint8))
    where = {"images": folder / "images.npy"}
    assert read_lines(folder, {"image": 1, "tags": []}, **where)[0].image == 1
    (problem,) = problems_of(folder, {"image": 2, "tags": []}, **where)
    assert problem == "line 1: image 2 is not in the array of 2 images"


def test_all_mistakes_are_reported_each_with_its_line(folder):
    problems = problems_of(
        folder,
        {"image": "good.png", "tags": ["cat"]},
        {"image": "missing.png", "tags": ["cat"]},
        {"image": "good.png", "tags": ["unicorn", "cat"]},
        '{"image": "good.png"',
        {"image": "broken.png", "tags": []},
        {"tags": ["cat"]},
        {"image": "good.png", "tags": "cat"},
        {"image": "good.png"},
        {"image": "good.png", "tags_zh": ["独角兽"]},
    )
    told = {problem.split(":")[0]: problem for problem in problems}
    assert sorted(told) == [f"line {number}" for number in range(2, 10)]
    assert "missing.png is missing" in told["line 2"]
    assert "'unicorn' is not in the vocabulary" in told["line 3"]
    assert "invalid JSON" in told["line 4"]
    assert "broken.png cannot be used (the PNG is truncated or damaged)" in told["line 5"]
    assert "'image'" in told["line 6"]
    assert "'tags' must be a list of names" in told["line 7"]
    assert "has neither 'tags'" in told["line 8"]
    assert "'独角兽'" in told["line 9"]


def test_an_image_of_absurd_size_is_a_mistake_like_any_other(folder):
    header = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 200000, 200000, 1, 24, *[0] * 6)
    (folder / "absurd.bmp").write_bytes(header)
    absurd, unknown = sorted(
        problems_of(
            folder, {"image": "absurd.bmp", "tags": []}, {"image": "good.png", "tags": ["unicorn"]}
        )
    )
    assert "200000 x 200000 pixels are over the limit" in absurd
    assert "line 2: the tag 'unicorn'" in unknown


def test_a_folder_has_tags_beside_each_image_in_either_language(folder):
    (folder / "broken.png").unlink()
    (folder / "good.txt").write_text("cat\n狗\n", "utf-8")
    (sample,) = read(folder, folder=folder)
    assert sample.tags == (0, 1)


def test_subfolders_of_a_folder_are_splits(folder):
    for place in ("a.png", "train/b.png", "validation/deep/c.png", "test/d.png"):
        path = folder / "images" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        path.with_suffix(".txt").touch()
    found = {one.image.name: one.split for one in read(folder, folder=folder / "images")}
    assert found == {"a.png": None, "b.png": "train", "c.png": "validation", "d.png": "test"}


def test_an_image_of_a_folder_without_tags_is_reported(folder):
    (folder / "good.txt").write_text("cat\n", "utf-8")
    with pytest.raises(ManifestError, match=r"broken\.png: its tags are missing"):
        read(folder, folder=folder)


@pytest.mark.parametrize(
    ("where", "error"),
    [({"manifest": "none.jsonl"}, FileNotFoundError), ({"folder": "none"}, ManifestError)],
)
def test_data_that_is_not_there_is_reported(folder, where, error):
    with pytest.raises(error, match="none"):
        read(folder, **{key: folder / value for key, value in where.items()})


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (b"no array", "images.npy: is not a NumPy array"),
        (b"", "images.npy: is not a NumPy array"),
        (np.zeros((2, 8, 8), np.uint8), r"images.npy: uint8 \(2, 8, 8\) is not an array of images"),
        (np.array(["a"]), "images.npy: is not an array of numbers"),
    ],
)
def test_an_array_of_something_else_is_reported(folder, contents, fault):
    if isinstance(contents, bytes):
        (folder / "images.npy").write_bytes(contents)
    else:
        np.save(folder / "images.npy", contents)
    with pytest.raises(ConfigError, match=fault):
        read_lines(folder, {"image": 0, "tags": []}, images=folder / "images.npy")


def test_an_empty_manifest_is_reported(folder):
    assert "contains no images" in problems_of(folder, "")[0]
