"""Quantities that are measured several times, and the one way to time things: in turn."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Run = Callable[[], object]
# Runs something a number of times; returns the seconds that all of them took.
Clock = Callable[[Run, int], float]

FEWEST_WARM_UPS = 3  # the first runs allocate, choose kernels, or compile some


@dataclass(frozen=True)
class Measurement:
    """The values of all rounds; the median is the result, lowest and highest are its spread."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The result."""
        return median(self.values)

    @property
    def lowest(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The largest value."""
        return max(self.values)

    def map(self, function: Callable[[float], float]) -> "Measurement":
        """Return a function of each value."""
        return Measurement(tuple(map(function, self.values)))

    def over(self, other: "Measurement") -> "Measurement":
        """Divide round by round: what slows a round slows both."""
        pairs = zip(self.values, other.values, strict=True)
        return Measurement(tuple(one / another for one, another in pairs))

    def as_dict(self) -> dict[str, object]:
        """Return median, spread and values by name, for JSON."""
        return {
            "median": self.median,
            "low": self.lowest,
            "high": self.highest,
            "values": list(self.values),
        }

    def __str__(self) -> str:
        if len(self.values) == 1:
            return three_digits(self.median)
        spread = f"{three_digits(self.lowest)} to {three_digits(self.highest)}"
        return f"{three_digits(self.median)} ({spread})"


def three_digits(value: float) -> str:
    """Write a positive number with three digits, or with all digits before its point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield a table's lines, its columns padded to be read as they are."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of all values does not exceed (nearest rank)."""
    return float(np.percentile(values, 100 * share, method="inverted_cdf"))


def interleave(
    items: Sequence[Item], rounds: int, random: np.random.Generator
) -> Iterator[tuple[int, Item]]:
    """Yield all items once per round, in a random order, each with the round's number from 1 on.

    Whatever else slows the machine then slows all items alike.
    """
    for number in range(1, rounds + 1):
        for index in random.permutation(len(items)).tolist():
            yield number, items[index]


def processor_clock(run: Run, times: int) -> float:
    """Time what the processor computes."""
    start = perf_counter()
    for _ in range(times):
        run()
    return perf_counter() - start


def time_interleaved(
    ways: Mapping[str, Run],
    rounds: int,
    random: np.random.Generator,
    *,
    clock: Clock = processor_clock,
    seconds: float = 0.0,
    warm_up: float = 0.0,
) -> dict[str, Measurement]:
    """Time several ways to do the same, interleaved.

    Args:
        ways: what to run, by name.
        rounds: how often each way is timed.
        random: decides the order of each round.
        clock: of the device that they run on.
        seconds: how long a way runs in each round, at least once.
        warm_up: how many seconds each way runs before, uncounted, at least `FEWEST_WARM_UPS` times.

    Returns:
        The milliseconds of one run of each way, one value per round.
    """
    times = {
        name: max(1, round(seconds / _warm_up(run, clock, warm_up))) for name, run in ways.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _, name in interleave(list(ways), rounds, random):
        taken[name].append(1000 * clock(ways[name], times[name]) / times[name])
    return {name: Measurement(tuple(values)) for name, values in taken.items()}


def _warm_up(run: Run, clock: Clock, seconds: float) -> float:
    """Run for some time; returns how many seconds one run takes then."""
    end = perf_counter() + seconds
    taken: list[float] = []
    while len(taken) < FEWEST_WARM_UPS or perf_counter() < end:
        taken.append(clock(run, 1))
    return max(median(taken), 1e-9)
