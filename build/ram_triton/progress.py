"""How far a command is, on stderr: one changing line in a terminal, a line per 10 s elsewhere."""

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

SECONDS = 10.0  # between lines if stderr is not a terminal


class StatusLine:
    """A context that shows what is being done, until it ends; then the line disappears."""

    def __init__(self, text: str) -> None:
        self._text, self._started = text, time.monotonic()
        console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(text, total=None)
        self._ended = threading.Event()
        # A thread, so that lines come while one call to a library takes minutes.
        self._lines = None if console.is_terminal else threading.Thread(target=self._print_lines)

    def update(self, text: str) -> None:
        """Show another text from now on."""
        self._text = text
        self._bar.update(self._task, description=text)

    def __enter__(self) -> "StatusLine":
        self._bar.start()
        if self._lines:
            self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._ended.set()
        if self._lines:
            self._lines.join()

    def _print_lines(self) -> None:
        while not self._ended.wait(SECONDS):
            seconds = time.monotonic() - self._started
            print(f"{self._text}, {seconds:.0f} s", file=sys.stderr, flush=True)
