"""Images from parquet: a column of encoded images, of places, or of both as data sets have it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import arrow
from .errors import BulkError, reason_of
from .item import Item
from .places import absolute, join, open_binary

BATCH = 32  # rows that are decoded at once
IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "img")
PLACE_NAMES = ("path", "image_path", "file", "file_name", "filename", "url", "uri")
KEY_NAMES = ("key", "__key__", "id", "image_id")


@dataclass(frozen=True)
class Columns:
    """Which columns have the image and its key; None chooses by the usual names.

    Without a column for keys a row's number is its key.
    """

    image: str | None = None
    key: str | None = None


def check(place: str, columns: Columns) -> int:
    """Return the number of rows; raises BulkError for what is not parquet or has no such column."""
    with _opened(place) as file:
        _choose(place, file.schema_arrow, columns)
        return int(file.metadata.num_rows)


def read_parquet(
    place: str, source: str, columns: Columns, start: int, stop: int
) -> Iterator[Item]:
    """Yield the rows from `start` to before `stop`; raises BulkError as `check`."""
    with _opened(place) as file:
        image, key = _choose(place, file.schema_arrow, columns)
        groups, position = _groups(file.metadata, start, stop)
        names = [name for name in (image, key) if name]
        folder = absolute(place).rpartition("/")[0]
        try:
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=names):
                for row in batch.to_pylist():
                    if start <= position < stop:
                        name = str(position if key is None else row[key])
                        yield _item(position, name, source, row[image], folder)
                    position += 1
        except (OSError, ValueError) as error:
            raise BulkError(f"{place}: {reason_of(error)}") from error


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    pyarrow, parquet = arrow.modules(place)
    try:
        stream = open_binary(place, random_access=True)
    except OSError as error:
        raise BulkError(f"{place}: {reason_of(error)}") from error
    with stream:
        try:
            file = parquet.ParquetFile(stream)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise BulkError(f"{place}: cannot be read as parquet: {reason_of(error)}") from error
        with file:
            yield file


def _choose(place: str, schema: Any, columns: Columns) -> tuple[str, str | None]:
    """Return the names of the columns of images and of keys."""
    names = list(schema.names)
    for given, option in ((columns.image, "--image-column"), (columns.key, "--key-column")):
        if given and given not in names:
            raise BulkError(f"{place}: {option} {given}: its columns are {', '.join(names)}")
    image = columns.image or next(
        (name for name in (*IMAGE_NAMES, *PLACE_NAMES) if name in names), None
    )
    if image is None:
        raise BulkError(
            f"{place}: no column of images: give --image-column one of {', '.join(names)}"
        )
    return image, columns.key or next((name for name in KEY_NAMES if name in names), None)


def _groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that have some of the rows, and the position of their first row."""
    groups: list[int] = []
    first = position = 0
    for number in range(metadata.num_row_groups):
        after = position + metadata.row_group(number).num_rows
        if position < stop and after > start:
            first = first if groups else position
            groups.append(number)
        position = after
    return groups, first


def _item(position: int, key: str, source: str, value: Any, folder: str) -> Item:
    item = Item(position, key, source)
    if isinstance(value, dict):  # of data sets' libraries: {"bytes", "path"}
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        item.image = value
    elif isinstance(value, str) and value:
        item.place = join(folder, value)
    elif value is None or value == "":
        item.error = "no image in this row"
    else:
        item.error = f"the column of images has a {type(value).__name__}"
    return item
