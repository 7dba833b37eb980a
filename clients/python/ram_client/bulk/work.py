"""What is left to do: the images of all parts that are not there, in order."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from ..errors import RamError, reason_of
from .errors import BulkError
from .item import Item
from .listing import FILES, TAR, Listing, Unit
from .output import OutputFolder
from .places import READ_ATTEMPTS, is_address
from .shards import ImageColumns, read_parquet, read_tar

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


Entry: TypeAlias = Image | PartEnd | UnitEnd


@dataclass(frozen=True)
class Work:
    """What is left to do of a listing, and how it is read.

    Attributes:
        size: images per part.
        columns: of parquet.
        keep_members: whether items get what the output is to have beside their rows.
    """

    listing: Listing
    output: OutputFolder
    size: int
    columns: ImageColumns
    keep_members: bool

    def total(self) -> int | None:
        """How many images there are in all; None while a shard was never read to its end."""
        total = 0
        for unit in self.listing.units():
            count = self.output.length(unit)
            if count is None:
                return None
            total += count
        return total

    def __iter__(self) -> Iterator[Entry]:
        """Yield the images of the parts that are missing, each part followed by its end.

        Raises BulkError for a source that has changed, or cannot be read.
        """
        for unit in self.listing.units():
            count = self.output.length(unit)
            if count is None:
                unit.check()
                yield from self._in_parts(unit, self._read_shard(unit))
                continue
            for start, stop in self._missing(unit, count):
                unit.check()
                yield from self._in_parts(unit, self._read(unit, start, stop))

    def _missing(self, unit: Unit, count: int) -> Iterator[tuple[int, int]]:
        """Yield runs of images whose parts are not there."""
        parts = range(-(-count // self.size))
        for is_there, run in groupby(parts, lambda part: self.output.has(unit.number, part)):
            if not is_there:
                missing = [*run]
                yield missing[0] * self.size, min(count, (missing[-1] + 1) * self.size)

    def _in_parts(self, unit: Unit, items: Iterator[Item | int]) -> Iterator[Entry]:
        part, length = None, None
        for item in items:
            if isinstance(item, int):
                length = item
                continue
            number = item.position // self.size
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

    def _read(self, unit: Unit, start: int, stop: int) -> Iterator[Item | int]:
        if unit.kind == FILES:
            return self.listing.files(start, stop)
        if unit.kind == TAR:
            return self._read_shard(unit)
        return read_parquet(unit.place, unit.source, self.columns, start, stop)

    def _read_shard(self, unit: Unit) -> Iterator[Item | int]:
        """Read a webdataset shard; an address on from where it stopped, if the network failed."""
        after = 0

        def wanted(position: int) -> bool:
            return position >= after and not self.output.has(unit.number, position // self.size)

        for attempt in range(READ_ATTEMPTS):
            try:
                for item in read_tar(
                    unit.place, unit.source, wanted, keep_members=self.keep_members
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
