"""Findings: what was checked and its state; as a table, as lines or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Status(IntEnum):
    """The state of a thing; a higher one is worse."""

    FINE = 0
    NOT_NEEDED = 1  # the profile does not use it
    UNKNOWN = 2  # it could not be checked
    WARNING = 3  # it works, with a drawback
    ERROR = 4  # it does not work, or gives wrong answers

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


STYLES = {
    Status.FINE: "green",
    Status.NOT_NEEDED: "dim",
    Status.UNKNOWN: "yellow",
    Status.WARNING: "yellow",
    Status.ERROR: "bold red",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        status: the state of what was checked.
        subject: what was checked.
        text: what was seen, in one line.
        remedy: what to do about it; empty if nothing has to be done.
    """

    status: Status
    subject: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Refuse a problem without a remedy."""
        if self.status > Status.NOT_NEEDED and not self.remedy:
            raise ValueError(f"{self.subject}: the problem '{self.text}' has no remedy")


fine = partial(Finding, Status.FINE)
not_needed = partial(Finding, Status.NOT_NEEDED)
unknown = partial(Finding, Status.UNKNOWN)
warning = partial(Finding, Status.WARNING)
error = partial(Finding, Status.ERROR)


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 0 if nothing is wrong, 1 for a warning or something unknown, 2 for an error."""
    worst = max((finding.status for finding in findings), default=Status.FINE)
    return 2 if worst is Status.ERROR else int(worst >= Status.UNKNOWN)


def print_table(findings: Sequence[Finding]) -> None:
    """Print a table that fits a terminal; elsewhere one whole line per finding."""
    console = Console()
    if not console.is_terminal:
        for finding in findings:
            remedy = f" → {finding.remedy}" if finding.remedy else ""
            print(f"{finding.status!s:10}  {finding.subject}: {finding.text}{remedy}")
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for _ in ("what was checked", "what was seen and what to do"):
        table.add_column(overflow="fold")  # a path may be broken, but is never cut
    for finding in findings:
        table.add_row(
            Text(str(finding.status), STYLES[finding.status]), finding.subject, Text(finding.text)
        )
        if finding.remedy:
            table.add_row("", "", Text(f"→ {finding.remedy}", "cyan"))
    console.print(table)


def print_json(findings: Sequence[Finding], repository: Path, profile: str) -> None:
    """Print one object with the findings and the exit status."""
    contents = {
        "repository": str(repository),
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
    print(json.dumps(contents, indent=2, ensure_ascii=False))
