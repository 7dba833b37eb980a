"""What all sinks have in common, the thread that writes, and files that no interruption spoils."""

import asyncio
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..errors import RamError, reason_of
from ..files import Source, Url
from ..tag import Tag

LANGUAGES = ("en", "zh", "both")

Result = TypeVar("Result")


class WriteFailed(RamError):
    """The tags of one picture cannot be written; the message names the file."""


class TableFailed(WriteFailed):
    """A file with the tags of all pictures cannot be written: the others would fail, too."""


class Sink(ABC):
    """A place for tags. Its calls are made one after the other, from one thread.

    All of them raise WriteFailed.
    """

    def open(self) -> None:  # noqa: B027  # nothing, for a file per picture
        """Find out whether writing is possible, before any picture is sent."""

    @abstractmethod
    def has(self, source: Source) -> bool:
        """Whether the picture's tags are there from an earlier run; writes nothing."""

    @abstractmethod
    def add(self, source: Source, tags: list[Tag]) -> None:
        """Write the tags of a picture, in a way that survives Ctrl-C."""

    @abstractmethod
    def preview(self, source: Source, tags: list[Tag]) -> str:
        """Describe in a line what `add` would write; writes nothing."""

    def close(self) -> None:  # noqa: B027
        """Finish what has been added."""


class Writer:
    """Calls the sinks from a thread of its own, one call after the other. Raises WriteFailed."""

    def __init__(self, sinks: list[Sink]):
        """The sinks, in the order of writing: tables, which list what is done, come last."""
        self.sinks = sinks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ram-tag writer")

    async def open(self) -> None:
        """Open all sinks."""
        for sink in self.sinks:
            await self._call(sink.open)

    async def has(self, source: Source) -> bool:
        """Whether the picture's tags are in all sinks."""
        return await self._call(lambda: all(sink.has(source) for sink in self.sinks))

    async def add(self, source: Source, tags: list[Tag]) -> None:
        """Write a picture's tags into all sinks; the first that fails ends it."""
        for sink in self.sinks:
            await self._call(partial(sink.add, source, tags))

    async def preview(self, source: Source, tags: list[Tag]) -> list[str]:
        """What `add` would do, a line per sink."""
        return await self._call(lambda: [sink.preview(source, tags) for sink in self.sinks])

    def close(self) -> list[Exception]:
        """Finish all sinks, after what was begun; returns what went wrong."""
        problems = []
        for sink in self.sinks:
            try:
                self._thread.submit(sink.close).result()
            except Exception as error:
                problems.append(error)
        self._thread.shutdown()
        return problems

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def keywords(tags: list[Tag], language: str) -> list[str]:
    """The tags' names in a language of LANGUAGES, best first, each once.

    A label of the user's own may have no Chinese name: its only one stands for it.
    """
    names: dict[str, None] = {}
    for tag in tags:
        if language != "zh" or not tag.name_zh:
            names[tag.name] = None
        if language != "en" and tag.name_zh:
            names[tag.name_zh] = None
    return list(names)


def folder_of(source: Source) -> Path:
    """The picture's own path, for a sink that writes beside it."""
    if isinstance(source, Url):
        raise WriteFailed(f"{source}: a picture from the network has no folder to write into")
    return source


def text_of(source: Source) -> str:
    r"""A picture's name as valid text: bytes that are not UTF-8 become escapes, as in `\udcff`."""
    return str(source).encode("utf-8", "backslashreplace").decode()


@contextmanager
def explained(path: Path, failure: type[WriteFailed] = WriteFailed) -> Iterator[None]:
    """Raise an OSError of the block as a failure that names the path."""
    try:
        yield
    except OSError as error:
        raise failure(f"{path}: {reason_of(error)}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file that takes the place of `path` if the block succeeds.

    It keeps the mode of the file that it replaces, and follows a link. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    existing = target.stat() if target.exists() else None
    if existing and not os.access(target, os.W_OK):  # a rename would not care
        raise PermissionError(13, "write-protected", str(target))
    new = target.parent / f".ram-tag-{secrets.token_hex(8)}.tmp"
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield new
        if existing:
            new.chmod(existing.st_mode & 0o7777)
            with new.open("r+b") as file:
                os.fsync(file.fileno())  # before the old content goes
        new.replace(target)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
