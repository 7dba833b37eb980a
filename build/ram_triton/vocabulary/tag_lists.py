"""A vocabulary folder as RAM publishes it: three text files, a tag a line."""

import math
from pathlib import Path

import numpy as np

from ram_triton.errors import VocabularyError
from ram_triton.server_code import Vocabulary

ENGLISH = "ram_tag_list.txt"
CHINESE = "ram_tag_list_chinese.txt"
THRESHOLDS = "ram_tag_list_threshold.txt"
DEFAULT_THRESHOLD = 0.68  # that of RAM's reference for tags without one
# Labels that were never trained score lower; ram_open takes the same.
NEW_THRESHOLD = 0.5


def read_vocabulary(
    folder: Path, num_tags: int, default_threshold: float = DEFAULT_THRESHOLD
) -> Vocabulary:
    """Read the tags' names and thresholds.

    Args:
        folder: holds the three lists, UTF-8; that of the thresholds may be missing.
        num_tags: how many tags the checkpoint has.
        default_threshold: holds for every tag where there is no list of thresholds.

    Raises:
        VocabularyError: a list is missing, has another length than the checkpoint or holds a
            name twice; or a threshold is no number between 0 and 1.
    """
    if not folder.is_dir():
        raise VocabularyError(f"{folder}: no such folder")
    tags = _read_lines(folder / ENGLISH, num_tags)
    tags_zh = _read_lines(folder / CHINESE, num_tags)
    if len(set(tags)) < len(tags):
        twice = next(tag for index, tag in enumerate(tags) if tag in tags[:index])
        raise VocabularyError(f"{folder / ENGLISH}: the tag '{twice}' stands there twice")
    thresholds = [default_threshold] * num_tags
    if (folder / THRESHOLDS).exists():
        lines = _read_lines(folder / THRESHOLDS, num_tags)
        thresholds = [
            read_threshold(line, f"{folder / THRESHOLDS}, line {number}")
            for number, line in enumerate(lines, 1)
        ]
    return Vocabulary(tags, tags_zh, np.array(thresholds, np.float32))


def read_threshold(text: str, place: str) -> float:
    """Read a score between 0 and 1.

    Raises:
        VocabularyError: it is none; the message starts with `place`.
    """
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise VocabularyError(f"{place}: '{text}' is no threshold between 0 and 1")
    return threshold


def _read_lines(path: Path, expected: int) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise VocabularyError(f"{path}: no such file") from error
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: is not UTF-8 ({error.reason})") from error
    if len(lines) != expected:
        raise VocabularyError(
            f"{path}: has {len(lines)} lines, but the checkpoint has {expected} tags"
        )
    if "" in lines:
        raise VocabularyError(f"{path}, line {lines.index('') + 1}: is empty")
    return lines
