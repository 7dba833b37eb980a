"""What is left to do: the images of all parts that are not there, in order."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RamError
from .errors import BulkError, reason_of
from .item import Item
from .listing import FILES, TAR, Listing, Unit
from .output import OutputFolder
from .parquet_source import Columns, read_parquet
from .places import READ_ATTEMPTS, is_address
from .tar_source import read_tar

PAUSE = 1.0  # seconds before an address is read again


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be tagged, for a part."""

    unit: int
    part: int
    item: Item
    sample: str


@dataclass(frozen=True, slots=True)
class PartEnd:
    """All images of a part were given."""

    unit: int
    part: int


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """A shard was read to its end."""

    unit: int
    length: int


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    Attributes:
        size: images per part.
        columns: of parquet.
        keep_members: whether items get what the output is to have beside their rows.
    """

    size: int
    columns: Columns
    keep_members: bool


def remaining(
    listing: Listing, output: OutputFolder, reading: Reading
) -> Iterator[Image | PartEnd | UnitEnd]:
    """Yield the images of the parts that are missing, each part followed by its end.

    Raises BulkError for a source that has changed, or cannot be read.
    """
    for unit in listing.units():
        count = output.length(unit.number) if unit.count is None else unit.count
        if count is None:
            unit.check()
            yield from _in_parts(unit, _read_shard(unit, output, reading), reading)
            continue
        for start, stop in _missing(unit, count, output, reading.size):
            unit.check()
            yield from _in_parts(unit, _read(unit, start, stop, listing, output, reading), reading)


def _missing(unit: Unit, count: int, output: OutputFolder, size: int) -> Iterator[tuple[int, int]]:
    """Yield runs of images whose parts are not there."""
    start = None
    for part in range(-(-count // size)):
        if output.has(unit.number, part):
            if start is not None:
                yield start, part * size
            start = None
        elif start is None:
            start = part * size
    if start is not None:
        yield start, count


def _in_parts(
    unit: Unit, items: Iterator[Item | int], reading: Reading
) -> Iterator[Image | PartEnd | UnitEnd]:
    part, length = None, None
    for item in items:
        if isinstance(item, int):
            length = item
            continue
        number = item.position // reading.size
        if part is not None and number != part:
            yield PartEnd(unit.number, part)
        part = number
        # A shard's samples have names; a file's may have dots, which a sample's cannot.
        sample = item.key if unit.kind == TAR else f"{unit.number:05d}-{item.position:09d}"
        yield Image(unit.number, part, item, sample)
    if part is not None:
        yield PartEnd(unit.number, part)
    if length is not None:
        yield UnitEnd(unit.number, length)


def _read(
    unit: Unit, start: int, stop: int, listing: Listing, output: OutputFolder, reading: Reading
) -> Iterator[Item | int]:
    if unit.kind == FILES:
        return (
            Item(file.position, file.key, file.source, place=file.place)
            for file in listing.files(start, stop)
        )
    if unit.kind == TAR:
        return _read_shard(unit, output, reading)
    return read_parquet(unit.place, unit.source, reading.columns, start, stop)


def _read_shard(unit: Unit, output: OutputFolder, reading: Reading) -> Iterator[Item | int]:
    """Read a webdataset shard; an address on from where it stopped, if the network failed."""
    after = 0

    def wanted(position: int) -> bool:
        return position >= after and not output.has(unit.number, position // reading.size)

    for attempt in range(READ_ATTEMPTS):
        try:
            for item in read_tar(
                unit.place, unit.source, wanted, keep_members=reading.keep_members
            ):
                if not isinstance(item, int):
                    after = item.position + 1
                yield item
            return
        except RamError:
            raise
        except Exception as error:  # each file system has errors of its own
            if attempt == READ_ATTEMPTS - 1 or not is_address(unit.place):
                raise BulkError(f"{unit.place}: {reason_of(error)}") from error
            time.sleep(PAUSE)
