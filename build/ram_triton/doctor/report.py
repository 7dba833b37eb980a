"""Findings as a table, as plain lines or as JSON, and the exit status that they give."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence

from ram_triton.doctor.finding import Finding, Status

MARKS = {
    Status.FINE: ("green", "fine"),
    Status.NOT_NEEDED: ("dim", "not needed"),
    Status.UNKNOWN: ("yellow", "unknown"),
    Status.WARNING: ("yellow", "warning"),
    Status.ERROR: ("bold red", "error"),
}
ALL_FINE, TROUBLE_AHEAD, WILL_NOT_SERVE = range(3)


def exit_status(findings: Sequence[Finding]) -> int:
    """0: nothing is wrong; 1: a warning, or something that could not be looked at; 2: an error."""
    worst = max((finding.status for finding in findings), default=Status.FINE)
    if worst is Status.ERROR:
        return WILL_NOT_SERVE
    return TROUBLE_AHEAD if worst >= Status.UNKNOWN else ALL_FINE


def print_table(findings: Sequence[Finding]) -> None:
    """Print a table with rich, or a line for each finding where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for finding in findings:
            remedy = f" → {finding.remedy}" if finding.remedy else ""
            print(f"{finding.status!s:10} {finding.subject}: {finding.text}{remedy}")
        return
    table = Table("", "what", "how it stands", "what to do")
    for finding in findings:
        style, mark = MARKS[finding.status]
        cells = (finding.subject, finding.text, finding.remedy)
        table.add_row(Text(mark, style), *map(Text, cells))
    # A file or a pipe has no width: lines are then as long as they need to be.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def print_json(findings: Sequence[Finding], repository: str, profile: str) -> None:
    """Print one object with the findings and the exit status."""
    told = {
        "repository": repository,
        "profile": profile,
        "status": exit_status(findings),
        "findings": [
            {
                "subject": finding.subject,
                "status": str(finding.status),
                "text": finding.text,
                "remedy": finding.remedy,
            }
            for finding in findings
        ],
    }
    print(json.dumps(told, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal while `total` bytes are read; yields what to call with a number."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
    except ImportError:
        yield lambda count: None
        return
    columns = ("reading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda count: bar.advance(task, count)
