"""How far a long job is: a line that changes in a terminal; steps, with their time and memory."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from time import perf_counter

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from ram_triton.processes import PROC, resident_peak

LINE_INTERVAL = 10.0  # seconds between lines of a status if stderr is not a terminal
STEP_INTERVAL = 8.0  # seconds between two signs of life in a step
GIGABYTE = 1e9


@contextlib.contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done until the context ends; then the line disappears.

    If stderr is not a terminal, it is a line per 10 s.

    Args:
        text: what to show first.

    Yields:
        What to call with each further text.
    """
    shown, start = [text], perf_counter()
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

    def print_line() -> None:
        print(f"{shown[0]}, {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    with bar, contextlib.ExitStack() as lines:
        if not console.is_terminal:
            lines.enter_context(_calling(print_line, LINE_INTERVAL))
        yield update


@dataclass(frozen=True)
class Step:
    """What a step took.

    Attributes:
        step: its name.
        seconds: how long it took.
        peak_bytes: the most memory that the process had resident meanwhile.
    """

    step: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Steps:
    """Measures steps and prints what they take.

    Attributes:
        say: prints a line.
        taken: the steps that have ended, in order.
    """

    say: Callable[[str], None] = print
    taken: list[Step] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what is done inside; a step that fails is not counted."""
        self.say(name)
        _forget_peak()
        start = perf_counter()

        def report() -> None:
            self.say(f"{name}: {perf_counter() - start:.0f} s so far")

        with _calling(report, STEP_INTERVAL):
            yield
        step = Step(name, perf_counter() - start, resident_peak("self"))
        self.taken.append(step)
        self.say(f"{name}: {step.seconds:.1f} s, {step.peak_bytes / GIGABYTE:.1f} GB of memory")


@contextlib.contextmanager
def _calling(function: Callable[[], None], interval: float) -> Iterator[None]:
    """Call a function every few seconds: in a thread, as one call of a library takes minutes."""
    ended = Event()

    def call() -> None:
        while not ended.wait(interval):
            function()

    thread = Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _forget_peak() -> None:
    """Let the peak start from what is resident now; where the kernel refuses, it is so far's."""
    with contextlib.suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")
