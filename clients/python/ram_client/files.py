"""The pictures of the command line: which files a path means."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from .errors import ImageUnreadable

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
STDIN = "-"
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
FETCHED = re.compile(r"https?://", re.I)


class Url(str):
    """The address of a picture on the network."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The address itself."""
        return self


Source: TypeAlias = Path | Url
"""Where a picture comes from."""


def read_paths(arguments: Iterable[str], *, null: bool = False) -> Iterator[str]:
    """Yield the paths of a command line; `-` stands for those on stdin.

    On stdin a path ends with its line, or with `null` at a NUL, as `find -print0` writes them.
    """
    for argument in arguments:
        if argument != STDIN:
            yield argument
        elif null:
            yield from map(os.fsdecode, filter(None, sys.stdin.buffer.read().split(b"\0")))
        else:
            for line in sys.stdin.buffer:
                if path := line.rstrip(b"\r\n"):
                    yield os.fsdecode(path)


def find_images(
    path: str | Path,
    *,
    recursive: bool,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    problems: list[ImageUnreadable] | None = None,
) -> list[Path]:
    """The images in a folder, by suffix and sorted by name, or the file itself, whatever it is.

    Files with other suffixes are not meant, nor are folders. What has an image's suffix and is
    neither, such as a broken link, is among the images, and fails when it is read.

    Raises ImageUnreadable for an address, and for a folder that cannot be listed or has no images;
    for a subfolder it goes into `problems`, if there are any. A missing file is not noticed here,
    but when it is read.
    """
    if ADDRESS.match(str(path)) and not Path(path).exists():
        ways = "--urls does so" if FETCHED.match(str(path)) else "download it, and name the file"
        raise ImageUnreadable(f"{path}: addresses are not fetched: {ways}")
    path = Path(path)
    found: list[ImageUnreadable] = []
    try:
        if not path.is_dir():
            return [path]
        candidates = _walk(path, found) if recursive else path.iterdir()
        images = [
            candidate
            for candidate in sorted(candidates)
            if candidate.suffix.lower() in suffixes and not candidate.is_dir()
        ]
    except OSError as error:
        raise ImageUnreadable(f"{path}: {error.strerror}") from error
    if problems is not None:
        problems += found
    elif found:
        raise found[0]
    if not images and not found:
        hint = "" if recursive else " (--recursive also looks into its subfolders)"
        raise ImageUnreadable(f"{path}: no images in this folder{hint}")
    return images


def _walk(folder: Path, problems: list[ImageUnreadable]) -> Iterator[Path]:
    """All files below a folder; what cannot be read is a problem, unless it is the folder."""

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        problems.append(ImageUnreadable(f"{error.filename}: {error.strerror}"))

    for parent, _, names in os.walk(folder, onerror=note):
        for name in names:
            yield Path(parent, name)
