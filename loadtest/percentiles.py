"""Counts of requests between two moments, out of running totals."""

from collections import Counter
from dataclasses import dataclass, field

from limits import Figures
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import calculate_response_time_percentile


class Latencies:
    """How many requests took so many milliseconds, in four digits: locust's own are of two."""

    def __init__(self, environment: Environment):
        self.totals: Counter[float] = Counter()
        self._unreported: Counter[float] = Counter()
        events = environment.events
        events.request.add_listener(self._on_request)
        if isinstance(environment.runner, WorkerRunner):
            events.report_to_master.add_listener(self._on_report)
        if isinstance(environment.runner, MasterRunner):
            events.worker_report.add_listener(self._on_worker)

    def clear(self) -> None:
        """Begin anew."""
        self.totals.clear()

    def _on_request(self, response_time: float, **_: object) -> None:
        latency = float(f"{response_time:.4g}")
        self.totals[latency] += 1
        self._unreported[latency] += 1

    def _on_report(self, client_id: str, data: dict) -> None:
        data["ram_latencies"] = dict(self._unreported)
        self._unreported.clear()

    def _on_worker(self, client_id: str, data: dict) -> None:
        self.totals.update(data.get("ram_latencies", {}))


@dataclass(frozen=True)
class Counts:
    """Requests, their failures and latencies; differences are those in between.

    Attributes:
        requests, failures: how many.
        latencies: how many took so many milliseconds, in four digits.
    """

    requests: int = 0
    failures: int = 0
    latencies: Counter[float] = field(default_factory=Counter)

    @classmethod
    def of(cls, environment: Environment) -> "Counts":
        """Return the totals of now."""
        total = environment.stats.total
        latencies = Counter(environment.ram.latencies.totals)
        return cls(total.num_requests, total.num_failures, latencies)

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
