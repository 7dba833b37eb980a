"""What waits for the encoder on a CPU, counted by the processes of several models.

There the encoder's queue has no limit: with one, Triton prepares no batch while another runs, and
does not look again when that ends (docs/operations.md). Instead the doors, the first steps of the
ensembles, count the images that they hand on, the encoder those that it takes, and the doors hand
on no more than it soon takes (door.py). The counts are in a file in the folder that whoever starts
the server names in RAM_SERVER_FOLDER. Each process has a row, and writes no other.

An image that is lost on its way to the encoder, because its client left, is forgotten once the
encoder has had nothing to do.
"""

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = os.environ.get("RAM_SERVER_FOLDER")
NAME = "backlog"  # of the file
ROWS = 64
DOOR, ENCODER = 1, 2  # kinds of a row; 0 is free
FIELDS = np.dtype(
    [
        ("kind", "i8"),
        ("images", "i8"),  # handed on or taken since the start, by all processes that had the row
        ("at_work", "i8"),  # images that the process works on
        ("waits_since", "i8"),  # ns, of the clock that all processes have; 0 if a door does not
        ("rests_since", "i8"),  # ns: the end of an encoder's last batch
        ("pace", "i8"),  # ns per image of an encoder
    ]
)
SIZE = ROWS * FIELDS.itemsize
REST = 100_000_000  # ns without work after which nothing waits for an encoder
FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process


class Counts:
    """The counts of all processes, and the row of this one.

    Attributes:
        own: the row, of FIELDS; `write` shows it to the others.
        place: which of the rows it is.
    """

    def __init__(self, folder: str, kind: int) -> None:
        """Take a row that no living process has, and go on with its count of images.

        Args:
            folder: where the file is, or will be.
            kind: DOOR or ENCODER.

        Raises:
            OSError: the file cannot be written, or has no more rows.
        """
        self._file = os.open(Path(folder, NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._file, 0, SIZE)  # or a full disk would fail a write later
            self.place, self.own = self._take_row(kind)
            self.own["kind"], self.own["rests_since"] = kind, time.monotonic_ns()
            self.own["at_work"] = self.own["waits_since"] = 0
            self.write()
        except OSError:
            os.close(self._file)
            raise

    def read(self) -> np.ndarray:
        """Return all rows, (ROWS,) of FIELDS; what is going on in dead processes is left out."""
        rows = np.frombuffer(bytearray(os.pread(self._file, SIZE, 0)), FIELDS)
        for place in np.flatnonzero(rows["kind"]):
            if place != self.place and not self._is_locked(int(place)):
                rows[place]["at_work"] = rows[place]["waits_since"] = 0
                rows[place]["rests_since"] = rows[place]["pace"] = 0
        return rows

    def write(self) -> None:
        """Show the own row to the others."""
        os.pwrite(self._file, self.own.tobytes(), self.place * FIELDS.itemsize)

    def _take_row(self, kind: int) -> tuple[int, np.void]:
        for place in range(ROWS):
            with contextlib.suppress(BlockingIOError):
                self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, place)
                row = np.frombuffer(os.pread(self._file, SIZE, 0), FIELDS)[place].copy()
                if row["kind"] in (0, kind):
                    return place, row
                self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place)
        raise OSError(f"{NAME}: has no more than {ROWS} rows")

    def _is_locked(self, place: int) -> bool:
        found = self._lock(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, place)
        return bool(struct.unpack(FLOCK, found)[0] != fcntl.F_UNLCK)

    def _lock(self, command: int, kind: int, place: int) -> bytes:
        # A lock of the open file: it ends with the process, however that ends.
        lock = struct.pack(FLOCK, kind, os.SEEK_SET, place, 1, 0)
        return fcntl.fcntl(self._file, command, lock)


def take_part(folder: str | None, kind: int) -> Counts | None:
    """Return `Counts`, or None without a folder, or if it cannot be written."""
    if folder is not None:
        with contextlib.suppress(OSError):
            return Counts(folder, kind)
    return None


def count_waiting(rows: np.ndarray) -> int:
    """Return how many images were handed on and not yet taken; rows: (N,) of FIELDS."""
    images = rows["images"]
    return int(images[rows["kind"] == DOOR].sum() - images[rows["kind"] == ENCODER].sum())


class Encoder:
    """An instance of the encoder, which counts what it takes."""

    def __init__(self, folder: str | None = FOLDER) -> None:
        """See `Counts`; without a folder, or if it cannot be written, nothing is counted."""
        self._counts = take_part(folder, ENCODER)

    @contextlib.contextmanager
    def taking(self, images: int) -> Iterator[None]:
        """Count images as taken, and as worked on within the context."""
        if self._counts is None:
            yield
            return
        own, began = self._counts.own, time.monotonic_ns()
        waiting = count_waiting(self._counts.read())
        # After a rest all that was counted before has come, or never will. And what did not come
        # through a door was not counted.
        has_rested = began - own["rests_since"] > REST
        own["images"] += waiting if has_rested else max(0, min(images, waiting))
        own["at_work"] = images
        self._counts.write()
        try:
            yield
        finally:
            own["at_work"], own["rests_since"] = 0, time.monotonic_ns()
            pace = (own["rests_since"] - began) // max(1, images)
            own["pace"] = (3 * own["pace"] + pace) // 4 if own["pace"] else pace
            self._counts.write()
