"""A server's log: always read, never waited for. Lines that cannot be kept are counted."""

import contextlib
import os
import re
import select
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 16384  # bytes; what is longer becomes several lines
KEPT_LINES = 200  # of a start
PIECE = select.PIPE_BUF  # bytes that a pipe takes at once if it takes any
TRITONS_LINE = re.compile(r"[IWEF]\d{4} ")
# Lines that are not Triton's own, such as libtiff's on a damaged picture, of which one request can
# cause thousands: a number at once, and a rate per second from then on.
BURST, RATE = 500, 50.0


class LineWriter:
    """Writes lines to a file, a pipe or a terminal; a line that would have to wait is dropped.

    Attributes:
        dropped: the number of lines that were not written: a full disk, a reader that is slow or
            has gone.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to an open descriptor, which stays the caller's."""
        self.dropped = 0
        self._descriptor = descriptor
        self._untold = 0
        self._torn = False

    @classmethod
    def open(cls, path: Path) -> "LineWriter":
        """Write to a file, emptied first, or to a pipe that has a reader; its folder is created.

        Raises:
            OSError: it cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
        return cls(os.open(path, flags, 0o666))

    def __call__(self, line: str) -> None:
        """Write a line, and before it how many were dropped."""
        if self._untold and self._write(f"ram-triton: {self._untold} lines were dropped here"):
            self._untold = 0
        if not self._write(line):
            self.dropped += 1
            self._untold += 1

    def close(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _write(self, line: str) -> bool:
        data = f"{line}\n".encode(errors="replace")
        if self._torn:  # the last line broke off
            data = b"\n" + data
        try:
            for begin in range(0, len(data), PIECE):
                if not select.select([], [self._descriptor], [], 0)[1]:
                    self._torn |= begin > 0
                    return False
                piece = data[begin : begin + PIECE]
                if os.write(self._descriptor, piece) < len(piece):
                    self._torn = True
                    return False
        except (OSError, ValueError):  # a full disk, no reader, closed
            return False
        self._torn = False
        return True


class LogReader:
    """Reads a server's output to its end, so that the server never waits for whoever reads it.

    Attributes:
        dropped: the number of lines that were left out because there were too many of a kind.
    """

    def __init__(
        self, sinks: list[Callable[[str], None]], spell: Callable[[str], str] = lambda line: line
    ) -> None:
        """Hand each line to all sinks; one that fails does not get in the way of the others.

        Args:
            sinks: called with each line.
            spell: changes a line first.
        """
        self._spell = spell
        self.dropped = 0
        self._sinks = sinks
        self._allowance = float(BURST)
        self._since = time.monotonic()

    def read(self, output: BinaryIO) -> None:
        """Read until the last process that has the pipe open ends."""
        with output:
            for data in iter(lambda: output.readline(LONGEST_LINE), b""):
                line = self._spell(data.decode(errors="replace").rstrip())
                if not self._is_allowed(line):
                    self.dropped += 1
                    continue
                for sink in self._sinks:
                    with contextlib.suppress(Exception):  # or nobody would read any more
                        sink(line)

    def _is_allowed(self, line: str) -> bool:
        if TRITONS_LINE.match(line):
            return True
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._since) * RATE)
        self._since = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class StartLog:
    """What the log of a starting server reports; one thread adds lines while another asks.

    Attributes:
        loaded: names of the models that are loaded.
    """

    def __init__(self) -> None:
        """Begin without a line."""
        self.loaded: set[str] = set()
        self._loading: set[str] = set()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def __call__(self, line: str) -> None:
        """Keep a line, and learn which models are loaded."""
        self._lines.append(line)
        if match := re.search(r'"loading: (\w+):', line):
            self._loading.add(match[1])
        if match := re.search(r"successfully loaded '(\w+)'", line):
            self.loaded.add(match[1])

    def missing(self) -> set[str]:
        """Return the names of the models whose loading began and did not end."""
        return self._loading - self.loaded

    def reason(self) -> str | None:
        """Return the first line that names the model that failed; None if there is none."""
        for line in list(self._lines):  # a copy: the other thread adds to it meanwhile
            if "failed to load" in line and line.startswith("E"):
                return line.split("] ", 1)[-1].strip('"').split("\\n")[0]
        return None

    def last_line(self) -> str:
        """Return the last line, or that there is none."""
        return " ".join(list(self._lines)[-1:]) or "its log is empty"
