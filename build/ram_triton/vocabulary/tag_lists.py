"""A vocabulary folder as RAM publishes it: three text files with one tag per line."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ram_triton.errors import VocabularyError
from ram_triton.files import read_lines, write_atomically
from ram_triton.server_code import Vocabulary

ENGLISH = "ram_tag_list.txt"
CHINESE = "ram_tag_list_chinese.txt"
THRESHOLDS = "ram_tag_list_threshold.txt"
DEFAULT_THRESHOLD = 0.68  # RAM's reference uses it for tags without a threshold
NEW_THRESHOLD = 0.5  # labels that were never trained score lower; ram_open uses the same


def read_vocabulary(
    folder: Path, num_tags: int | None = None, default_threshold: float = DEFAULT_THRESHOLD
) -> Vocabulary:
    """Read the tags' names and thresholds.

    Args:
        folder: contains the three lists, UTF-8; the list of thresholds is optional.
        num_tags: number of tags of the checkpoint; None accepts any.
        default_threshold: for every tag, if there is no list of thresholds.

    Raises:
        VocabularyError: a list is missing or has another length, an English name occurs twice, a
            name is empty, or a threshold is not a number from 0 to 1.
        FileError: a list is not UTF-8.
    """
    columns = read_columns(folder, num_tags)
    tags = columns[ENGLISH]
    if CHINESE not in columns:
        raise VocabularyError(f"{folder / CHINESE}: no such file")
    for name in (ENGLISH, CHINESE):
        if "" in columns[name]:
            raise VocabularyError(f"{folder / name}, line {columns[name].index('') + 1}: is empty")
    seen: set[str] = set()
    for number, tag in enumerate(tags, 1):
        if tag in seen:
            raise VocabularyError(f"{folder / ENGLISH}, line {number}: duplicate tag '{tag}'")
        seen.add(tag)
    thresholds = [
        read_threshold(line, f"{folder / THRESHOLDS}, line {number}")
        for number, line in enumerate(columns.get(THRESHOLDS, []), 1)
    ]
    values = np.array(thresholds or [default_threshold] * len(tags), np.float32)
    return Vocabulary(tags, columns[CHINESE], values)


def read_columns(folder: Path, num_tags: int | None = None) -> dict[str, list[str]]:
    """Read a folder's lists by their file names: the lines, without the space around them.

    Blank lines at the end of a list do not count.

    Args:
        folder: contains the list of English names, and optionally the others.
        num_tags: the length that each must have; None: that of the English names.

    Raises:
        VocabularyError: the folder or the English names are missing, or a list has another length.
        FileError: a list is not UTF-8.
    """
    if not folder.is_dir():
        raise VocabularyError(f"{folder}: no such folder")
    if not (folder / ENGLISH).exists():
        raise VocabularyError(f"{folder / ENGLISH}: no such file")
    columns = {
        name: _without_blank_end([line.strip() for line in read_lines(folder / name)])
        for name in (ENGLISH, CHINESE, THRESHOLDS)
        if (folder / name).exists()
    }
    wanted, source = num_tags, f"the checkpoint has {num_tags} tags"
    if num_tags is None:
        wanted = len(columns[ENGLISH])
        source = f"{ENGLISH} has {wanted}"
    for name, lines in columns.items():
        if len(lines) != wanted:
            raise VocabularyError(f"{folder / name}: has {len(lines)} lines, but {source}")
    return columns


def read_threshold(text: str, place: str) -> float:
    """Read a score from 0 to 1.

    Raises:
        VocabularyError: it is not one; the message starts with `place`.
    """
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise VocabularyError(f"{place}: '{text}' is not a threshold from 0 to 1")
    return threshold


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write all three lists.

    Raises:
        OSError: a file cannot be written.
    """
    write_names(vocabulary.tags, vocabulary.tags_zh, folder)
    write_thresholds(vocabulary.thresholds.tolist(), folder)


def write_names(tags: Sequence[str], tags_zh: Sequence[str], folder: Path) -> None:
    """Write the lists of English and Chinese names, in the same order.

    Raises:
        OSError: a file cannot be written.
    """
    _write_lines(tags, folder / ENGLISH)
    _write_lines(tags_zh, folder / CHINESE)


def write_thresholds(thresholds: Iterable[float], folder: Path) -> None:
    """Write the list of thresholds, in six digits: a float32 has more, and 0.68 would not stay so.

    Raises:
        OSError: the file cannot be written.
    """
    _write_lines((f"{threshold:.6g}" for threshold in thresholds), folder / THRESHOLDS)


def _without_blank_end(lines: list[str]) -> list[str]:
    """The lines without the blank ones after the last: editors leave them."""
    count = len(lines)
    while count and not lines[count - 1]:
        count -= 1
    return lines[:count]


def _write_lines(lines: Iterable[str], path: Path) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines))
