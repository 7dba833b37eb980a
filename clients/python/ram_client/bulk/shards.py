"""Images from shards: webdataset's .tar, in which a sample's files follow each other, and parquet.

Of parquet: a column of encoded images, of places, or of both as data sets have it.
"""

import gzip
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from ..errors import reason_of
from ..files import IMAGE_SUFFIXES
from .errors import BulkError, arrow_modules, ending_run
from .item import Item, Members
from .places import absolute, is_address, join, open_binary

CHUNK = 1 << 20  # bytes of a .tar that are read at once from an address
DAMAGED = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError)
BATCH = 32  # rows of parquet that are decoded at once
IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "img")
PLACE_NAMES = ("path", "image_path", "file", "file_name", "filename", "url", "uri")
KEY_NAMES = ("key", "__key__", "id", "image_id")


def read_tar(
    place: str, source: str, wanted: Callable[[int], bool], *, keep_members: bool
) -> Iterator[Item | int]:
    """Yield the samples of a shard at the positions that are wanted, and at the end their number.

    What follows damage is lost: an item whose error names it stands for it. Raises OSError, or what
    the address's file system does, if the file cannot be read.

    Args:
        place: of the shard; if it is compressed, it is read as a stream.
        source: its name in the rows.
        wanted: whether the sample at a position is to be read.
        keep_members: whether items get all files of their sample.
    """
    count = 0
    mode = "r|*" if is_address(place) else "r:*"
    with open_binary(place) as file:
        try:
            with tarfile.open(fileobj=file, mode=mode, bufsize=CHUNK) as archive:  # type: ignore[call-overload]
                for item in _samples(archive, source, wanted, keep_members):
                    count += 1
                    if item:
                        yield item
        except DAMAGED as error:
            reason = f"the shard is damaged after {count} images: {reason_of(error)}"
            if wanted(count):
                yield Item(count, f"#{count}", source, error=reason)
            count += 1
    yield count


def _samples(
    archive: tarfile.TarFile, source: str, wanted: Callable[[int], bool], keep_members: bool
) -> Iterator[Item | None]:
    """Yield a shard's samples in their order, None for each that is not wanted."""
    seen: Counter[str] = Counter()
    for position, (key, files) in enumerate(groupby(_files(archive), itemgetter(0))):
        members: Members = []
        image = None
        is_wanted = wanted(position)
        for _, suffix, member in files:
            is_first = image is None and is_image(suffix)
            if is_wanted and (keep_members or is_first):
                content = _read(archive, member)
                members.append((suffix, content))
                image = content if is_first else image
        seen[key] += 1  # keys are unique within a shard
        if is_wanted:
            yield Item(
                position,
                key if seen[key] == 1 else f"{key}#{seen[key]}",
                source,
                image=image,
                error=None if image is not None else "no image in this sample",
                members=members if keep_members else [],
            )
        else:
            yield None


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield each file's sample, the rest of its name, and its place in the archive."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # or it keeps all of them
        name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        key, suffix = split_name(name)
        if member.isfile() and key and suffix:
            yield key, suffix, member


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    data = content.read() if content else b""
    if len(data) < member.size:
        raise EOFError("it ends within a file")
    return data


def split_name(name: str) -> tuple[str, str]:
    """A member's sample and the rest of its name, as webdataset splits it: at the first dot."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


def is_image(suffix: str) -> bool:
    """Whether a member is an image, by the end of its name."""
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES


@dataclass(frozen=True)
class ImageColumns:
    """Which columns have the image and its key; None chooses by the usual names.

    Without a column for keys a row's number is its key.
    """

    image: str | None = None
    key: str | None = None


def check_parquet(place: str, columns: ImageColumns) -> int:
    """Return the number of rows; raises BulkError for what is not parquet or has no such column."""
    with _opened(place) as file:
        _choose(place, file.schema_arrow, columns)
        return int(file.metadata.num_rows)


def read_parquet(
    place: str, source: str, columns: ImageColumns, start: int, stop: int
) -> Iterator[Item]:
    """Yield the rows from `start` to before `stop`; raises BulkError as `check_parquet`."""
    with _opened(place) as file:
        image, key = _choose(place, file.schema_arrow, columns)
        groups, position = _groups(file.metadata, start, stop)
        names = [name for name in (image, key) if name]
        folder = absolute(place).rpartition("/")[0]
        with ending_run(place, OSError, ValueError):
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=names):
                for row in batch.to_pylist():
                    if start <= position < stop:
                        name = str(position if key is None else row[key])
                        yield _item(position, name, source, row[image], folder)
                    position += 1


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    pyarrow, parquet = arrow_modules(place)
    unreadable = (OSError, ValueError, pyarrow.ArrowException)
    with ending_run(place, OSError):
        stream = open_binary(place, random_access=True)
    with stream:
        with ending_run(place, *unreadable, problem="cannot be read as parquet: "):
            file = parquet.ParquetFile(stream)
        with file:
            yield file


def _choose(place: str, schema: Any, columns: ImageColumns) -> tuple[str, str | None]:
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
