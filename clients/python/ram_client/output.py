"""What `ram-tag` prints: results on stdout, progress and a summary on stderr."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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

MOST_REASONS, MOST_TAGS = 5, 10  # in a summary
# Control characters that JSON leaves as they are, and terminals obey.
_CONTROLS = re.compile(r"[\x7f-\x9f]")


class Output:
    """What prints results on stdout."""

    def add(self, file: Source, tags: list[Tag]) -> None:
        """Print one file's tags, or keep them."""

    def finish(self) -> None:
        """Print what is left."""


class Nothing(Output):
    """No results on stdout: they go into files."""


class Tables(Output):
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


class JsonLines(Output):
    """One JSON object per file, a line each, at once."""

    def add(self, file: Source, tags: list[Tag]) -> None:
        """Print one file's line."""
        print(_to_json(_record(file, tags)), flush=True)


class JsonArray(Output):
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


def watches_stderr(total: int) -> bool:
    """Whether somebody may wait for so many files, and read what stderr has on them."""
    return total > 1 and sys.stderr.isatty()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """How many files per second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class ProgressBar(Progress):
    """A bar on stderr that makes room for other output; invisible if nobody watches."""

    def __init__(self, total: int, *, quiet: bool = False):
        super().__init__(
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
        self._files = self.add_task("", total=total)

    def count(self) -> None:
        """Count one file as done."""
        self.advance(self._files)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        if self.disable:
            yield
            return
        self.stop()
        try:
            yield
        finally:
            self.start()


class Summary:
    """Counts pictures as they are done; its memory grows with tags and reasons, not with files."""

    def __init__(self) -> None:
        self.counts = Counter({"tagged": 0, "without tags": 0, "failed": 0})
        self._reasons: Counter[str] = Counter()
        self._tags: Counter[str] = Counter()

    def add(self, tags: list[Tag]) -> None:
        """Count a picture that was tagged."""
        self.counts["tagged" if tags else "without tags"] += 1
        self._tags.update({tag.name for tag in tags})

    def skip(self) -> None:
        """Count a picture that an earlier run tagged."""
        self.counts["skipped"] += 1

    def fail(self, error: object, source: Source | str | None = None) -> None:
        """Count a failure, by its message without the name of the picture."""
        self.counts["failed"] += 1
        self._reasons[str(error).removeprefix(f"{source}: ")] += 1

    def lines(self, seconds: float) -> list[str]:
        """The summary of a run that took so long."""
        done = self.counts["tagged"] + self.counts["without tags"]
        rate = f" ({done / seconds:.3g}/s)" if done and seconds else ""
        counts = ", ".join(f"{number} {what}" for what, number in self.counts.items())
        lines = [f"{counts}, in {seconds:.1f} s{rate}"]
        reasons = self._reasons.most_common(MOST_REASONS)
        lines += [f"failed: {count} × {reason}" for reason, count in reasons]
        if others := self.counts["failed"] - sum(count for _, count in reasons):
            lines.append(f"failed: {others} for other reasons")
        if tags := self._tags.most_common(MOST_TAGS):
            lines.append("most frequent: " + ", ".join(f"{name} {count}" for name, count in tags))
        return lines
