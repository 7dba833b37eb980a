"""Lists of names to recognise: plain text, CSV, or a published tag-list folder."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ram_triton.errors import VocabularyError
from ram_triton.server_code import fold
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH, THRESHOLDS, read_threshold

LONGEST_NAME = 100  # characters; the longest of RAM's has 27, and a text encoder cuts what is long
SHOWN_PROBLEMS = 20
# What the columns of a CSV file may be called.
COLUMNS = {
    "name": ("name", "tag", "english", "name_en"),
    "name_zh": ("name_zh", "tag_zh", "chinese"),
    "threshold": ("threshold",),
}


@dataclass(frozen=True)
class ListedName:
    """A line of a list.

    Attributes:
        place: file and line, for messages.
        name: in English.
        name_zh: in Chinese, or None where the list says nothing.
        threshold: the score to exceed, 0 to 1, likewise.
    """

    place: str
    name: str
    name_zh: str | None = None
    threshold: float | None = None

    @property
    def key(self) -> str:
        """What the server knows the name by: it does not tell upper from lower case, say."""
        return fold(self.name)


def read_names(path: Path) -> list[ListedName]:
    """Read a list of names.

    Args:
        path: a text file, UTF-8, one name a line, which a Chinese name and a threshold may follow,
            after tabs or commas; a `.csv` file whose header names its columns; or a folder with
            `ram_tag_list.txt` and, if there are any, the other lists that RAM publishes.

    Raises:
        VocabularyError: the list cannot be read or holds no names; or, all in one message with a
            line for each, names that are empty, too long or there twice, and wrong thresholds.
    """
    problems: list[str] = []
    names: list[ListedName] = []
    first: dict[str, ListedName] = {}
    for place, fields in _read_rows(path):
        listed = _read_fields(place, fields, problems)
        if listed is None:
            continue
        if listed.key in first:
            before = first[listed.key]
            problems.append(f"{place}: '{listed.name}' stands in {_line(before.place)} already")
            continue
        first[listed.key] = listed
        names.append(listed)
    raise_problems(problems)
    if not names:
        raise VocabularyError(f"{path}: holds no names")
    return names


def raise_problems(problems: list[str]) -> None:
    """Raise what is wrong, a line each, if there is anything.

    Raises:
        VocabularyError: there is.
    """
    more = len(problems) - SHOWN_PROBLEMS
    if problems:
        lines = problems[:SHOWN_PROBLEMS] + ([f"… and {more} more"] if more > 0 else [])
        raise VocabularyError("\n".join(lines))


def _read_fields(place: str, fields: list[str], problems: list[str]) -> ListedName | None:
    """Check a line's name, Chinese name and threshold; None where the name cannot be used."""
    name, name_zh, threshold, *rest = [*(field.strip() for field in fields), "", "", ""][:4]
    if not fold(name):
        problems.append(f"{place}: the name is empty")
        return None
    if any(rest) or len(fields) > 3:
        problems.append(f"{place}: has {len(fields)} fields, not name, Chinese name and threshold")
    for text in (name, name_zh):
        if len(text) > LONGEST_NAME:
            problems.append(
                f"{place}: '{text[:20]}…' has {len(text)} characters, {LONGEST_NAME} are allowed"
            )
        elif not text.isprintable():
            problems.append(f"{place}: {text!r} holds characters that cannot be printed")
    if name_zh and _is_number(name_zh):
        problems.append(f"{place}: '{name_zh}' stands where the Chinese name belongs")
    score = None
    if threshold:
        try:
            score = read_threshold(threshold, place)
        except VocabularyError as error:
            problems.append(str(error))
    return ListedName(place, name, name_zh or None, score)


def _read_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each line's place and fields, in the order name, Chinese name, threshold."""
    if path.is_dir():
        yield from _read_folder(path)
        return
    lines = _read_lines(path)
    if path.suffix.lower() == ".csv":
        yield from _read_csv(path, lines)
        return
    for number, line in enumerate(lines, 1):
        yield f"{path}, line {number}", line.split("\t" if "\t" in line else ",")


def _read_csv(path: Path, lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    rows = csv.reader(lines)
    header = [title.strip().lower() for title in next(rows, [])]
    places = {
        field: next((header.index(title) for title in titles if title in header), None)
        for field, titles in COLUMNS.items()
    }
    if places["name"] is None:
        raise VocabularyError(f"{path}: the first line names no column 'name'")
    for row in rows:
        fields = [row[at] if at is not None and at < len(row) else "" for at in places.values()]
        yield f"{path}, line {rows.line_num}", fields


def _read_folder(folder: Path) -> Iterator[tuple[str, list[str]]]:
    names = _read_lines(folder / ENGLISH)
    columns = [names]
    for file in (CHINESE, THRESHOLDS):
        lines = _read_lines(folder / file) if (folder / file).exists() else [""] * len(names)
        if len(lines) != len(names):
            raise VocabularyError(
                f"{folder / file}: has {len(lines)} lines, but {ENGLISH} has {len(names)}"
            )
        columns.append(lines)
    for number, fields in enumerate(zip(*columns, strict=True), 1):
        yield f"{folder / ENGLISH}, line {number}", list(fields)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: is not UTF-8 ({error.reason})") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(place: str) -> str:
    return place.rpartition(", ")[2]
