"""What all sinks have in common, and how files are written so that an interruption spoils none."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ..errors import RamError
from ..files import Source, Url
from ..tag import Tag

LANGUAGES = ("en", "zh", "both")


class WriteFailed(RamError):
    """The tags of one picture cannot be written; the message names the file."""


class TableFailed(WriteFailed):
    """A file with the tags of all pictures cannot be written: the others would fail, too."""


class Sink(Protocol):
    """A place for tags. Its calls are made one after the other, from one thread.

    All of them raise WriteFailed.
    """

    def open(self) -> None:
        """Find out whether writing is possible, before any picture is sent."""

    def has(self, source: Source) -> bool:
        """Whether the picture's tags are there from an earlier run; writes nothing."""

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Write the tags of a picture, in a way that survives Ctrl-C."""

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """Describe in a line what `add` would write; writes nothing."""

    def close(self) -> None:
        """Finish what has been added."""


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


def reason(error: Exception) -> str:
    """What went wrong, without the path that an OSError adds."""
    return getattr(error, "strerror", None) or str(error)


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
            _synchronise(new)  # before the old content goes
        new.replace(target)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
