"""What the command line prints: results on stdout, failures and progress on stderr."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .streams import plain
from .tag import Tag

# Control characters that JSON leaves as they are, and terminals obey.
_CONTROLS = re.compile(r"[\x7f-\x9f]")


class Tables:
    """One small table per file, for people."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True)

    def add(self, file: Path, tags: list[Tag]) -> None:
        """Print one file's tags."""
        self._console.print(Text(plain(file), style="bold"))
        if not tags:
            self._console.print("  no tags\n")
            return
        table = Table(box=None, padding=(0, 2), show_header=False)
        for tag in tags:
            score = Text(f"{tag.score:.3f}", style="cyan")
            marks = [] if tag.known else [Text("not the model's own", style="dim")]
            table.add_row(score, Text(plain(tag.name)), Text(plain(tag.name_zh)), *marks)
        self._console.print(table)
        self._console.print()

    def finish(self) -> None:
        """Nothing is left to print."""


class JsonLines:
    """One JSON object per file, a line each, at once."""

    def add(self, file: Path, tags: list[Tag]) -> None:
        """Print one file's line."""
        print(_to_json(_record(file, tags)), flush=True)

    def finish(self) -> None:
        """Nothing is left to print."""


class JsonArray:
    """One JSON array of all files, at the end."""

    def __init__(self) -> None:
        self._records: list[dict[str, object]] = []

    def add(self, file: Path, tags: list[Tag]) -> None:
        """Keep one file's object."""
        self._records.append(_record(file, tags))

    def finish(self) -> None:
        """Print the array."""
        print(_to_json(self._records, indent=2), flush=True)


def _record(file: Path, tags: list[Tag]) -> dict[str, object]:
    return {
        "file": str(file),
        "tags": [asdict(tag) | {"score": round(tag.score, 6)} for tag in tags],
    }


def _to_json(value: object, indent: int | None = None) -> str:
    utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_error(message: object) -> None:
    """Print one line on stderr, however many the message has."""
    text = " ".join(map(plain, str(message).splitlines()))
    with suppress(OSError):  # a full disk, or nobody who reads: the results still count
        print("ram-tag:", text, file=sys.stderr, flush=True)


class ProgressBar:
    """A bar on stderr that makes room for other output; invisible if nobody watches."""

    def __init__(self, total: int):
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=total < 2 or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> "ProgressBar":
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def advance(self) -> None:
        """Count one file as done."""
        self._progress.advance(self._task)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()
