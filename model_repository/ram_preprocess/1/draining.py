"""Refuses new requests while the server ends in order, in the first step of each ensemble.

Triton itself refuses an ensemble's later steps as soon as it is told to stop, and so fails what it
has begun. Whoever starts it names a folder in RAM_SERVER_FOLDER and, before telling it, puts a file
of the step's name into it. The file contains a mark; an image that has it is let through, so that
the starter sees when the requests before it are answered.
"""

from collections.abc import Sequence
from pathlib import Path

from .backlog import FOLDER
from .request import UnavailableError

MARKED = 256  # bytes at an image's beginning that may have the mark


def read_mark(step: str) -> bytes | None:
    """Return what lets an image through this step now; None if every image is.

    To be read once per batch: its later requests were there before those that are refused.
    """
    if FOLDER is None:
        return None
    try:
        return Path(FOLDER, step).read_bytes()
    except OSError:
        return None


def refuse_without(mark: bytes | None, images: Sequence[bytes]) -> None:
    """Raise `UnavailableError` if an image lacks the mark."""
    if mark is not None and not all(mark and mark in image[:MARKED] for image in images):
        raise UnavailableError("the server is stopping: ask another, or this one later")
