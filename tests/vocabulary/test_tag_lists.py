"""Vocabulary folders, good and bad."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ram_triton.errors import FileError, VocabularyError
from ram_triton.server_code import Vocabulary, fold
from ram_triton.vocabulary.tag_lists import (
    CHINESE,
    ENGLISH,
    THRESHOLDS,
    read_vocabulary,
    write_names,
    write_vocabulary,
)
from support.pipeline import NUM_TAGS

DEMO = Path(__file__).parents[2] / "build" / "demo" / "vocabulary"


@pytest.fixture
def folder(vocabulary_folder, tmp_path):
    return shutil.copytree(vocabulary_folder, tmp_path / "vocabulary")


def edit(path, line, text):
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines))


def test_names_are_stripped_and_in_order(folder):
    vocabulary = read_vocabulary(folder, NUM_TAGS)
    assert vocabulary.tags[:2] == ["tag 0", "tag 1"]
    assert vocabulary.tags_zh[:2] == ["标签0", "标签1"]
    np.testing.assert_allclose(vocabulary.thresholds[:2], [0.0002, 0.0004])


def test_one_default_threshold_holds_where_there_is_no_list(folder):
    (folder / THRESHOLDS).unlink()
    assert set(read_vocabulary(folder, NUM_TAGS, 0.25).thresholds.tolist()) == {0.25}


@pytest.mark.parametrize("name", [ENGLISH, CHINESE, THRESHOLDS])
def test_a_list_of_another_length_than_the_checkpoint_is_refused(folder, name):
    edit(folder / name, 5, None)
    with pytest.raises(VocabularyError, match=f"{name}: has 39 lines, but the checkpoint has 40"):
        read_vocabulary(folder, NUM_TAGS)


@pytest.mark.parametrize("text", ["high", "nan", "1.2", "-0.1"])
def test_a_wrong_threshold_is_refused_with_its_line(folder, text):
    edit(folder / THRESHOLDS, 7, text)
    with pytest.raises(VocabularyError, match=rf"line 7: '{text}' is not a threshold from 0 to 1"):
        read_vocabulary(folder, NUM_TAGS)


def test_an_empty_name_is_refused_with_its_line(folder):
    edit(folder / CHINESE, 9, " ")
    with pytest.raises(VocabularyError, match="line 9: is empty"):
        read_vocabulary(folder, NUM_TAGS)


@pytest.mark.parametrize("name", [ENGLISH, CHINESE, THRESHOLDS])
@pytest.mark.parametrize("end", ["\n", "\n\n\n", "  \n", "\r\n\t\r\n"])
def test_blank_lines_at_the_end_are_no_tags(folder, name, end):
    plain = read_vocabulary(folder, NUM_TAGS)
    (folder / name).write_text((folder / name).read_text() + end)
    assert read_vocabulary(folder, NUM_TAGS).tags == plain.tags
    assert read_vocabulary(folder).tags_zh == plain.tags_zh


def test_an_english_name_may_occur_only_once(folder):
    edit(folder / ENGLISH, 9, "tag 2")
    with pytest.raises(VocabularyError, match="line 9: duplicate tag 'tag 2'"):
        read_vocabulary(folder, NUM_TAGS)


def test_a_missing_folder_list_or_encoding_is_refused(folder, tmp_path):
    with pytest.raises(VocabularyError, match="no such folder"):
        read_vocabulary(tmp_path / "none", NUM_TAGS)
    (folder / CHINESE).write_bytes("标签".encode("gb18030"))
    with pytest.raises(FileError, match="line 1: is not UTF-8"):
        read_vocabulary(folder, NUM_TAGS)
    (folder / CHINESE).unlink()
    with pytest.raises(VocabularyError, match="no such file"):
        read_vocabulary(folder, NUM_TAGS)


def test_without_a_checkpoint_any_length_is_accepted_but_the_lists_must_agree(folder):
    assert len(read_vocabulary(folder).tags) == NUM_TAGS
    edit(folder / CHINESE, 5, None)
    with pytest.raises(VocabularyError, match=f"{CHINESE}: has 39 lines, but {ENGLISH} has 40"):
        read_vocabulary(folder)


def test_written_lists_are_read_back_as_they_were(tmp_path):
    vocabulary = Vocabulary(["cat", "dog"], ["猫", "狗"], np.array([0.68, 0.12345], np.float32))
    write_vocabulary(vocabulary, tmp_path)
    copy = read_vocabulary(tmp_path, 2)
    assert (copy.tags, copy.tags_zh) == (vocabulary.tags, vocabulary.tags_zh)
    np.testing.assert_array_equal(copy.thresholds, vocabulary.thresholds)
    assert (tmp_path / THRESHOLDS).read_text() == "0.68\n0.12345\n"


def test_names_alone_get_the_default_threshold(tmp_path):
    write_names(["cat"], ["猫"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [ENGLISH, CHINESE]
    assert read_vocabulary(tmp_path).thresholds.tolist() == [np.float32(0.68)]


def test_no_two_of_the_demos_tags_have_the_same_name():
    tags = read_vocabulary(DEMO).tags
    assert len({fold(tag) for tag in tags}) == len(tags) == 301
