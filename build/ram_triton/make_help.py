"""Print the Makefile's targets, or report what is wrong with the targets and variables given.

The Makefile is the source of both: a target has its summary after `##` in its rule, and its
variables in the lines `#: …` above, the optional ones in brackets. `##@ …` begins a group.

    make_help.py help
    make_help.py check TARGET... -- VARIABLE=VALUE...

Run by `make` each time, with the system's Python: it imports nothing that is slow.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
WIDTH = 80
NAME_WIDTH = 14
SET_UP = ("PYTHON", "TORCH")  # variables of set-up, which any target may need
# What else people type, and what they mean.
MEANT = {
    "tests": "'make test' runs the tests",
    "check": "'make test' runs the tests, 'make lint' checks style and types",
    "build": "'make model' builds a model repository from a checkpoint, 'make setup' creates .venv",
    "install": "'make setup' creates .venv",
    "deploy": "deploy/README.md describes the container",
    "docs": "the documentation is in docs/, there is nothing to be made of it",
    "run": "'make demo' shows all of it once, 'make serve' serves until Ctrl-C",
    "start": "'make serve' serves until Ctrl-C",
    "stop": "Ctrl-C stops 'make serve'",
    "all": "'make' alone lists the targets",
}


class Target(NamedTuple):
    """A target as the Makefile describes it; `usage` has its variables with examples."""

    name: str
    group: str
    summary: str
    usage: str

    @property
    def variables(self) -> list[str]:
        """Names of the variables that it takes."""
        return re.findall(r"\b([A-Z][A-Z_0-9]*)=", self.usage)

    @property
    def required(self) -> list[str]:
        """Names of those that it cannot do without."""
        return re.findall(r"\b([A-Z][A-Z_0-9]*)=", re.sub(r"\[[^]]*\]", "", self.usage))


def read_targets(makefile: str) -> list[Target]:
    """Return the targets that a Makefile describes, in its order."""
    targets, group, usage = [], "", ""
    for line in makefile.splitlines():
        if line.startswith("##@ "):
            group = line[4:]
        elif line.startswith("#: "):
            usage += " " + line[3:]
        elif match := re.match(r"([a-z-]+):.* ## (.+)", line):
            targets.append(Target(match[1], group, match[2], usage.strip()))
            usage = ""
    return targets


def help_text(targets: list[Target]) -> str:
    """Return the list of targets, 80 columns wide, their variables on lines of their own."""
    lines, group = [], None
    for target in targets:
        if target.group != group:
            lines += ["", target.group]
            group = target.group
        lines.append(f"  make {target.name:{NAME_WIDTH}} {target.summary}")
        indent = " " * (NAME_WIDTH + 8)
        # A value in quotes stays on one line.
        usage = re.sub(r'"[^"]*"', lambda value: value[0].replace(" ", "\0"), target.usage)
        for line in textwrap.wrap(
            usage, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False
        ):
            lines.append(indent + line.replace("\0", " "))
    lines += [
        "",
        "Set-up runs by itself. It takes PYTHON=python3.12 for another Python, and",
        "TORCH=cpu or TORCH=cuda for PyTorch's build (default: cuda on an NVIDIA GPU).",
    ]
    return "\n".join(lines[1:])


def problem(
    targets: list[Target], asked: list[str], given: list[str], present: set[str]
) -> str | None:
    """Return what is wrong with a call of make in one line, or None if nothing is.

    Args:
        targets: all that there are.
        asked: names of the targets to make; none means the help.
        given: names of the variables on the command line.
        present: names of all variables that have a value.
    """
    known = {target.name: target for target in (*targets, Target("help", "", "", ""))}
    wanted = []
    for name in asked:
        if "/" in name:  # a file, which is for those who know the Makefile
            continue
        if name not in known:
            hint = MEANT.get(name) or _suggestion(name, known, "did you mean 'make {}'?")
            return f"'make {name}' does not exist: {hint or MEANT['all']}"
        wanted.append(known[name])
    if "/" not in "".join(asked):
        allowed = [name for target in wanted for name in target.variables] + list(SET_UP)
        for name in given:
            if name not in allowed:
                hint = _suggestion(name, allowed, "did you mean {}?")
                takers = [target.name for target in targets if name in target.variables]
                hint = hint or (f"'make {takers[0]}' takes it" if takers else "'make' lists them")
                made = " ".join(["make", *asked])
                return f"{name} is not a variable of '{made}': {hint}"
    for target in wanted:
        if any(name not in present for name in target.required):
            needed = re.sub(r"\[[^]]*\]", "", target.usage).split()
            return f"make {target.name} needs {' '.join(needed)}"
    return None


def _suggestion(name: str, names: object, template: str) -> str | None:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)  # type: ignore[call-overload]
    return template.format(close[0]) if close else None


def main() -> int:
    """Run `help` or `check`; prints a problem on stdout, where make reads it."""
    targets = read_targets(MAKEFILE.read_text(encoding="utf-8"))
    command, *rest = sys.argv[1:]
    if command == "help":
        print(help_text(targets))
        return 0
    end = rest.index("--")
    given = dict(word.partition("=")[::2] for word in rest[end + 1 :])
    values = {**os.environ, **given}
    found = problem(targets, rest[:end], list(given), {name for name in values if values[name]})
    if found:
        print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
