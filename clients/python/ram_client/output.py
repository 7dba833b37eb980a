"""What the command line prints: results on stdout, failures and progress on stderr."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .files import Source
from .streams import plain
from .tag import Tag

# Control characters that JSON leaves as they are, and terminals obey.
_CONTROLS = re.compile(r"[\x7f-\x9f]")


class Tables:
    """One small table per file, for people."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True)

    def add(self, file: Source, tags: list[Tag]) -> None:
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


class Nothing:
    """No results on stdout: they go into files."""

    def add(self, file: Source, tags: list[Tag]) -> None:
        """Print nothing."""

    def finish(self) -> None:
        """Print nothing."""


class JsonLines:
    """One JSON object per file, a line each, at once."""

    def add(self, file: Source, tags: list[Tag]) -> None:
        """Print one file's line."""
        print(_to_json(_record(file, tags)), flush=True)

    def finish(self) -> None:
        """Nothing is left to print."""


class JsonArray:
    """One JSON array of all files, at the end."""

    def __init__(self) -> None:
        self._records: list[dict[str, object]] = []

    def add(self, file: Source, tags: list[Tag]) -> None:
        """Keep one file's object."""
        self._records.append(_record(file, tags))

    def finish(self) -> None:
        """Print the array."""
        print(_to_json(self._records, indent=2), flush=True)


def _record(file: Source, tags: list[Tag]) -> dict[str, object]:
    return {"file": str(file), "tags": [_fields(tag) for tag in tags]}


def _fields(tag: Tag) -> dict[str, object]:
    """A tag as JSON has it, with its box if there is a heat map."""
    found = {name: getattr(tag, name) for name in ("name", "name_zh", "score", "id", "known")}
    found["score"] = round(tag.score, 6)
    box = tag.box
    return found | ({"box": [round(edge, 4) for edge in box]} if box else {})


def _to_json(value: object, indent: int | None = None) -> str:
    utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_error(message: object) -> None:
    """Print one line on stderr, however many the message has."""
    text = " ".join(map(plain, str(message).splitlines()))
    with suppress(OSError):  # a full disk, or nobody who reads: the results still count
        print("ram-tag:", text, file=sys.stderr, flush=True)


def print_line(text: str) -> None:
    """Print one line on stdout, which a terminal can show."""
    print(plain(text), flush=True)


def watches_stderr(total: int) -> bool:
    """Whether somebody may wait for so many files, and read what stderr has on them."""
    return total > 1 and sys.stderr.isatty()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """How many files per second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class ProgressBar:
    """A bar on stderr that makes room for other output; invisible if nobody watches."""

    def __init__(self, total: int, *, quiet: bool = False):
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files"),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=quiet or not watches_stderr(total),
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
        if self._progress.disable:
            yield
            return
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()
