"""Lists of names to recognise: plain text, CSV, or a folder with published tag lists."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ram_triton.errors import VocabularyError, one_per_line
from ram_triton.files import read_lines
from ram_triton.server_code import fold
from ram_triton.vocabulary.tag_lists import (
    CHINESE,
    ENGLISH,
    THRESHOLDS,
    read_columns,
    read_threshold,
)

LONGEST_NAME = 100  # characters; RAM's longest has 27, and a text encoder truncates long texts
# Titles of the columns of a CSV file, by field.
COLUMNS = {
    "name": ("name", "tag", "english", "name_en"),
    "name_zh": ("name_zh", "tag_zh", "chinese"),
    "threshold": ("threshold",),
}
# A line's name, Chinese name and threshold, as texts; the last ones may be missing.
Fields = list[str]


@dataclass(frozen=True)
class ListedName:
    """A line of a list.

    Attributes:
        place: file and line, for messages.
        name: in English.
        name_zh: in Chinese, or None if the list does not specify it.
        threshold: the score to exceed, 0 to 1, or None.
    """

    place: str
    name: str
    name_zh: str | None = None
    threshold: float | None = None


def read_names(path: Path) -> list[ListedName]:
    """Read a list of names.

    Args:
        path: a text file, UTF-8, with one name per line, optionally followed by a Chinese name and
            a threshold, separated by tabs or commas; a `.csv` file whose header names its columns;
            or a folder with `ram_tag_list.txt` and optionally RAM's other lists.

    Raises:
        VocabularyError: there are no names; or, with one line per fault, names are empty, too long
            or duplicates, or thresholds are wrong.
        FileError: a file is not UTF-8.
        OSError: a file cannot be read.
    """
    problems: list[str] = []
    names: list[ListedName] = []
    first: dict[str, ListedName] = {}
    for place, fields in _read_rows(path):
        listed = _read_fields(place, fields, problems)
        if listed is None:
            continue
        before = first.setdefault(fold(listed.name), listed)
        if before is listed:
            names.append(listed)
        else:
            line = before.place.rpartition(", ")[2]
            problems.append(f"{place}: duplicate name '{listed.name}', the first is in {line}")
    if problems:
        raise VocabularyError(one_per_line(problems))
    if not names:
        raise VocabularyError(f"{path}: contains no names")
    return names


def _read_fields(place: str, fields: Fields, problems: list[str]) -> ListedName | None:
    """Check a line and add its faults to `problems`; None if it has no name."""
    name, name_zh, threshold = (
        fields[index].strip() if index < len(fields) else "" for index in range(len(COLUMNS))
    )
    if not fold(name):
        problems.append(f"{place}: the name is empty")
        return None
    if len(fields) > len(COLUMNS):
        problems.append(f"{place}: {len(fields)} fields, expected name, Chinese name and threshold")
    for text in (name, name_zh):
        if len(text) > LONGEST_NAME:
            problems.append(
                f"{place}: '{text[:20]}…' has {len(text)} characters, the limit is {LONGEST_NAME}"
            )
        elif not text.isprintable():
            problems.append(f"{place}: {text!r} contains characters that cannot be printed")
    if name_zh and _is_number(name_zh):
        problems.append(f"{place}: '{name_zh}' is in the place of the Chinese name")
    score = None
    if threshold:
        try:
            score = read_threshold(threshold, place)
        except VocabularyError as error:
            problems.append(str(error))
    return ListedName(place, name, name_zh or None, score)


def _read_rows(path: Path) -> Iterator[tuple[str, Fields]]:
    """Yield the place and the fields of each line."""
    if path.is_dir():
        yield from _read_folder(path)
    elif path.suffix.lower() == ".csv":
        yield from _read_csv(path)
    else:
        for number, line in enumerate(read_lines(path), 1):
            yield f"{path}, line {number}", line.split("\t" if "\t" in line else ",")


def _read_csv(path: Path) -> Iterator[tuple[str, Fields]]:
    rows = csv.reader(read_lines(path))
    header = [title.strip().lower() for title in next(rows, [])]
    places = {
        field: next((header.index(title) for title in titles if title in header), None)
        for field, titles in COLUMNS.items()
    }
    if places["name"] is None:
        raise VocabularyError(f"{path}: the first line has no column 'name'")
    for row in rows:
        fields = [row[at] if at is not None and at < len(row) else "" for at in places.values()]
        yield f"{path}, line {rows.line_num}", fields


def _read_folder(folder: Path) -> Iterator[tuple[str, Fields]]:
    columns = read_columns(folder)
    lists = (columns.get(file, []) for file in (ENGLISH, CHINESE, THRESHOLDS))
    for number, fields in enumerate(zip_longest(*lists, fillvalue=""), 1):
        yield f"{folder / ENGLISH}, line {number}", list(fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
