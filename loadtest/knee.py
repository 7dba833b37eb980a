"""The search for the knee: the highest rate that is still good."""

import math
from dataclasses import dataclass

FACTOR = 2.0  # from one rate to the next, until one is too high


@dataclass
class KneeSearch:
    """Doubles the rate until one is too high, then halves the distance in between.

    Attributes:
        start, maximum: rates.
        precision: the knee is known when the lowest bad rate is no more than this share above it.
        good: the highest rate that was good; 0 at first.
        bad: the lowest that was not; none at first.
    """

    start: float
    maximum: float
    precision: float
    good: float = 0.0
    bad: float | None = None

    def rate(self) -> float | None:
        """Return the rate to try next, None when the search is over."""
        if self.bad is None:
            if self.good >= self.maximum:
                return None
            return min(self.good * FACTOR or self.start, self.maximum)
        if not self.good or self.bad <= self.good * (1 + self.precision):
            return None
        return math.sqrt(self.good * self.bad)

    def found(self, rate: float, is_good: bool) -> None:
        """Take in how a rate was."""
        if is_good:
            self.good = rate
        else:
            self.bad = rate
