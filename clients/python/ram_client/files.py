"""The image files of the command line: which files a path means."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import ImageUnreadable

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
STDIN = "-"
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)


def read_paths(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the paths of a command line; `-` stands for those on stdin, one per line."""
    for argument in arguments:
        if argument == STDIN:
            for line in sys.stdin.buffer:
                if path := line.rstrip(b"\r\n"):
                    yield os.fsdecode(path)
        else:
            yield argument


def find_images(path: str | Path, *, recursive: bool) -> list[Path]:
    """The images in a folder, by suffix and sorted by name, or the file itself, whatever it is.

    Files with other suffixes are not meant, nor are folders. What has an image's suffix and is
    neither, such as a broken link, is among the images, and fails when it is read.

    Raises ImageUnreadable for an address, and for a folder that cannot be listed or has no images.
    A missing file is not noticed here, but when it is read.
    """
    if ADDRESS.match(str(path)) and not Path(path).exists():
        raise ImageUnreadable(f"{path}: addresses are not fetched: download it, and name the file")
    path = Path(path)
    try:
        if not path.is_dir():
            return [path]
        images = [
            candidate
            for candidate in sorted(path.rglob("*") if recursive else path.iterdir())
            if candidate.suffix.lower() in IMAGE_SUFFIXES and not candidate.is_dir()
        ]
    except OSError as error:
        raise ImageUnreadable(f"{path}: {error.strerror}") from error
    if not images:
        hint = "" if recursive else " (--recursive also looks into its subfolders)"
        raise ImageUnreadable(f"{path}: no images in this folder{hint}")
    return images
