"""The steps of a long job: the time and memory that each takes, and signs of life meanwhile."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from time import perf_counter
from typing import Any

from ram_triton.server.processes import PROC, read_numbers

INTERVAL = 8.0  # seconds between two signs of life
GIGABYTE = 1e9


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
        with self._signs_of_life(name, start):
            yield
        step = Step(name, perf_counter() - start, resident_peak("self"))
        self.taken.append(step)
        self.say(f"{name}: {step.seconds:.1f} s, {step.peak_bytes / GIGABYTE:.1f} GB of memory")

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the steps' fields by name, for the manifest."""
        return [asdict(step) for step in self.taken]

    @contextlib.contextmanager
    def _signs_of_life(self, name: str, start: float) -> Iterator[None]:
        ended = Event()

        def report() -> None:
            while not ended.wait(INTERVAL):
                self.say(f"{name}: {perf_counter() - start:.0f} s so far")

        thread = Thread(target=report, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def resident_peak(process: int | str) -> int:
    """Return the peak resident bytes of a process that is running, given by its id or as `self`.

    Raises:
        ProcessLookupError, FileNotFoundError: it has ended.
    """
    numbers = read_numbers(PROC / str(process) / "status")
    if "VmHWM" not in numbers:
        raise ProcessLookupError(f"process {process} has ended")  # and is waited for
    return numbers["VmHWM"]


def _forget_peak() -> None:
    """Let the peak start from what is resident now; where the kernel refuses, it is so far's."""
    with contextlib.suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")
