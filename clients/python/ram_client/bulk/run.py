"""A run: images are read ahead, asked for at the servers' pace, and written in their order."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from ..concurrency import gather_in_order
from ..errors import ImageUnreadable
from .item import Columns, Item, Row
from .output import Counts
from .places import path_of, read_image
from .servers import Servers
from .sinks import FORMATS, Part
from .work import Entry, Image, PartEnd, UnitEnd, Work

READERS = 16  # threads that read files
AHEAD = 16  # images that are read before a server has room for them
WINDOW = 2000  # rows that wait for a slow one before them
CHUNK = 32  # images that are taken from a source at once
CHUNK_BYTES = 8 << 20
MOST_BYTES = 256 << 20  # of images in memory

Result = TypeVar("Result")


class Run:
    """One run over what is left to do.

    Attributes:
        images: how many rows it has made.
        seconds: that it took, from the first answer of a server on.

    Args:
        work: what is left to do; rows get the image and the files beside it if it keeps them.
        servers: what is asked.
        file_format: a key of FORMATS.
        notes: strings that a parquet file keeps about itself.
        advanced: called after each image.
    """

    def __init__(
        self,
        work: Work,
        servers: Servers,
        *,
        file_format: str,
        notes: dict[str, str],
        advanced: Callable[[], None],
    ):
        self._entries, self._output, self._servers = iter(work), work.output, servers
        self._make_part = FORMATS[file_format][1]
        self._keep_images, self._notes = work.keep_members, notes
        self._advanced = advanced
        # Of its own, and left alone at the end: a thread may be within a read that takes long.
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="ram-bulk")
        self._room = asyncio.Event()
        self._active = self._bytes = 0
        self.images = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """Do all that is left.

        Raises RamError for what ends the run before that; what was published stays.
        """
        try:
            first = await self._in_thread(self._next_chunk)
            if not first:
                return
            async with self._servers.looked_after() as columns:
                self._output.begin(columns.sizes())
                started = time.monotonic()
                with self._output.writing():
                    await self._write_all(first, columns)
                self.seconds = time.monotonic() - started
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _write_all(self, first: list[Entry], columns: Columns) -> None:
        part: Part | None = None
        counts = Counts()
        rows = gather_in_order(self._finish, self._read_ahead(first), WINDOW)
        try:
            async with aclosing(rows):
                async for entry in rows:
                    if isinstance(entry, UnitEnd):
                        await self._in_thread(self._output.set_length, entry.unit, entry.length)
                    elif isinstance(entry, PartEnd):
                        assert part is not None
                        await self._in_thread(self._publish, part, entry, counts)
                        part, counts = None, Counts()
                    else:
                        image, row = entry
                        if part is None:
                            path = self._output.unfinished(image.unit, image.part)
                            part = self._make_part(path, columns, self._notes)
                        part.add(row)
                        self._count(row, counts)
                        if self._keep_images:
                            self._bytes -= _size(image.item)
                            self._room.set()
        finally:
            if part:
                with suppress(OSError):  # a full disk: the next run removes it
                    part.abandon()

    def _publish(self, part: Part, end: PartEnd, counts: Counts) -> None:
        part.finish()
        self._output.publish(end.unit, end.part, counts)

    def _count(self, row: Row, counts: Counts) -> None:
        counts.images += 1
        self.images += 1
        if row.error is not None:
            counts.fail(row.error)
        elif not row.tags:
            counts.untagged += 1
        self._advanced()

    async def _read_ahead(self, first: list[Entry]) -> AsyncIterator[Entry]:
        """Yield what is to do, as far ahead as memory and the servers' pace allow."""
        chunk = first
        while chunk:
            for entry in chunk:
                if isinstance(entry, Image):
                    while not self._has_room():
                        self._room.clear()
                        await self._room.wait()
                    self._active += 1
                    self._bytes += _size(entry.item)
                yield entry
            chunk = await self._in_thread(self._next_chunk)

    def _has_room(self) -> bool:
        return self._active < self._servers.capacity() + AHEAD and (
            self._bytes < MOST_BYTES or self._active == 0
        )

    async def _finish(self, entry: Entry) -> tuple[Image, Row] | PartEnd | UnitEnd:
        if not isinstance(entry, Image):
            return entry
        try:
            return entry, await self._tagged(entry)
        finally:
            self._active -= 1
            if not self._keep_images:
                self._bytes -= _size(entry.item)
                entry.item.image = None
            self._room.set()

    async def _tagged(self, entry: Image) -> Row:
        """Return an image's row."""
        item = entry.item
        row = Row(item.key, item.source, entry.sample, error=item.error, members=item.members)
        if item.error is not None:
            return row
        with row.keeping_error():
            image = item.image
            if image is None:
                assert item.place is not None
                image = await self._in_thread(read_image, item.place)
            if self._keep_images and not item.members:
                row.members = item.members = [(_suffix(item, image), image)]
                self._bytes += len(image) - len(item.image or b"")
                item.image = None
            if not image:
                raise ImageUnreadable("an empty file")
            row.keep(await self._servers.tag(image))
        return row

    def _next_chunk(self) -> list[Entry]:
        chunk: list[Entry] = []
        size = 0
        for entry in self._entries:
            chunk.append(entry)
            size += _size(entry.item) if isinstance(entry, Image) else 0
            if len(chunk) == CHUNK or size > CHUNK_BYTES:
                break
        return chunk

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _size(item: Item) -> int:
    if item.members:
        return sum(len(content) for _, content in item.members)
    return len(item.image or b"")


# The first bytes of image files, for the suffix of those that have no name.
_BEGINNINGS = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"RIFF": "webp",
}


def _suffix(item: Item, image: bytes) -> str:
    """The suffix of an image in a webdataset shard."""
    for beginning, suffix in _BEGINNINGS.items():
        if image.startswith(beginning):
            return suffix
    name = path_of(item.place or "").rpartition(".")[2].lower()
    return name if name.isalnum() and len(name) <= 5 else "jpg"
