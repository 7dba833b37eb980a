"""A quantity that was measured several times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Figure:
    """The values of all repeats; the median stands for them, lowest and highest are the spread."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure itself."""
        return median(self.values)

    def as_dict(self) -> dict[str, object]:
        """Return median, spread and values by name, for JSON."""
        low, high = min(self.values), max(self.values)
        return {"median": self.median, "low": low, "high": high, "values": list(self.values)}

    def __str__(self) -> str:
        return f"{show(self.median)} ({show(min(self.values))} to {show(max(self.values))})"


def show(value: float) -> str:
    """Write a positive number with three digits, or all that stand before its point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def take_turns(
    ways: dict[str, Callable[[], object]], repeats: int, random: np.random.Generator
) -> dict[str, Figure]:
    """Time several ways to do something.

    They take turns in a random order, so that whatever else the machine does slows all alike; a
    first turn of each, which allocates buffers, is not counted.

    Returns:
        The milliseconds of one call of each way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name in random.permutation(list(ways)).tolist():
            start = perf_counter()
            ways[name]()
            if turn:
                seconds[name].append(perf_counter() - start)
    return {name: Figure(tuple(1000 * s for s in taken)) for name, taken in seconds.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all does not exceed (nearest rank)."""
    return float(np.percentile(values, 100 * share, method="inverted_cdf"))
