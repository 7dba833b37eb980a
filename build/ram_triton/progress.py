"""How far a command is, on stderr: one changing line in a terminal, a line per 10 s elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

SECONDS = 10.0  # between lines if stderr is not a terminal


@contextlib.contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done until the context ends; then the line disappears.

    Args:
        text: what to show first.

    Yields:
        What to call with each further text.
    """
    shown, started, ended = [text], time.monotonic(), threading.Event()
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(text, total=None)

    def update(text: str) -> None:
        shown[0] = text
        bar.update(task, description=text)

    def print_lines() -> None:
        while not ended.wait(SECONDS):
            print(f"{shown[0]}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    # A thread, so that lines come while one call of a library takes minutes.
    lines = threading.Thread(target=print_lines, daemon=True)
    with bar:
        try:
            if not console.is_terminal:
                lines.start()
            yield update
        finally:
            ended.set()
            if lines.is_alive():
                lines.join()
