"""Counts of requests between two moments, out of locust's running totals."""

from collections import Counter
from dataclasses import dataclass, field

from limits import Figures
from locust.stats import StatsEntry, calculate_response_time_percentile


@dataclass(frozen=True)
class Counts:
    """Requests, their failures and latencies; differences are those in between.

    Attributes:
        requests, failures: how many.
        latencies: how many took so many milliseconds, as locust rounds them: to two digits.
    """

    requests: int = 0
    failures: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, total: StatsEntry) -> "Counts":
        """Return locust's totals of now."""
        return cls(total.num_requests, total.num_failures, Counter(total.response_times))

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(
            self.requests - before.requests,
            self.failures - before.failures,
            self.latencies - before.latencies,
        )

    def percentile(self, share: float) -> float:
        """Return a latency in milliseconds; NaN where nothing was counted."""
        if not self.requests:
            return float("nan")
        return calculate_response_time_percentile(self.latencies, self.requests, share)

    def figures(self, seconds: float) -> Figures:
        """Return what limits are compared with."""
        throughput = (self.requests - self.failures) / seconds if seconds > 0 else 0.0
        return Figures(self.requests, self.failures, self.percentile(0.99), throughput)
