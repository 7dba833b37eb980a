"""What a run has to keep to, and whether it did: the exit status."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What a run came to.

    Attributes:
        requests: how many, right and wrong, unsent ones included.
        failures: those of them that failed: errors, wrong answers, unsent ones.
        p99: milliseconds.
        throughput: right answers a second.
    """

    requests: int
    failures: int
    p99: float
    throughput: float

    @property
    def failure_share(self) -> float:
        """Failures of all requests, 0 to 1."""
        return self.failures / self.requests if self.requests else 1.0


@dataclass(frozen=True)
class Limits:
    """What a run has to keep to.

    Attributes:
        max_p99: milliseconds; 0 is no limit.
        max_failures: share of the requests, 0 to 1.
        min_throughput: right answers a second; 0 is no limit.
    """

    max_p99: float = 0.0
    max_failures: float = 0.0
    min_throughput: float = 0.0

    def verdict(self, figures: Figures) -> list[tuple[bool, str]]:
        """Return whether each limit was kept, with a line that says so."""
        failures = figures.failure_share
        lines = [
            (
                figures.requests > 0 and failures <= self.max_failures,
                f"failures   {figures.failures} of {figures.requests} requests ({failures:.2%}), "
                f"limit {self.max_failures:.2%}",
            )
        ]
        if self.max_p99:
            kept = figures.p99 <= self.max_p99
            lines.append((kept, f"p99        {figures.p99:g} ms, limit {self.max_p99:g} ms"))
        if self.min_throughput:
            kept = figures.throughput >= self.min_throughput
            text = f"{figures.throughput:.1f} right answers/s, limit {self.min_throughput:g}"
            lines.append((kept, f"throughput {text}"))
        return lines
