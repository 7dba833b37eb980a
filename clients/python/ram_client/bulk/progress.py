"""What the user sees of a run: a bar on a terminal, a line per minute elsewhere, and a summary."""

import sys
import time
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..streams import print_error
from .output import Counts

INTERVAL = 60.0  # seconds between lines
MOST_REASONS = 10


report = partial(print_error, program="ram-bulk")


class ProgressReport:
    """Shows how far a run is.

    Args:
        done: images that earlier runs have done.
        total: images in all, or None while that is not known.
    """

    def __init__(self, done: int, total: int | None):
        self._done, self._total = done, total
        self._started = self._shown = time.monotonic()
        self._new = 0
        columns = (
            BarColumn(),
            TextColumn("{task.completed:,} of {task.fields[known]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        known = "?" if total is None else f"{total:,}"
        self._task = self._bar.add_task("", total=total, completed=done, known=known, rate="")

    def __enter__(self) -> "ProgressReport":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def advance(self) -> None:
        """Count an image as done."""
        self._new += 1
        now = time.monotonic()
        if not self._bar.disable:
            if self._new % 10 == 0:
                rate = f"{self._new / (now - self._started):.3g}/s"
                self._bar.update(self._task, completed=self._done + self._new, rate=rate)
        elif now - self._shown >= INTERVAL:
            self._shown = now
            total = "" if self._total is None else f" of {self._total:,}"
            rate = f"{self._new / (now - self._started):.3g} images/s"
            report(f"{self._done + self._new:,}{total}, {rate}")


def summary(totals: Counts, new: int, seconds: float, parts: int, duplicates: int) -> list[str]:
    """The lines at the end of a run.

    Args:
        totals: of all runs.
        new: images of this one.
        seconds: that it took.
        parts: that are there.
        duplicates: images that were named twice.
    """
    failed = totals.failed.total()
    tagged = totals.images - totals.untagged - failed
    rate = f"; {new:,} now, in {seconds:.1f} s: {new / seconds:.3g} images/s" if new else ""
    lines = [
        f"{totals.images:,} images in {parts:,} parts: {tagged:,} tagged, "
        f"{totals.untagged:,} without tags, {failed:,} failed{rate}"
    ]
    if duplicates:
        lines.append(f"{duplicates:,} named twice, and tagged once")
    lines += [f"{count:>9,} {reason}" for reason, count in totals.failed.most_common(MOST_REASONS)]
    return lines
