"""The ramp: tries rates of arrivals, a step each, until the knee is known."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from knee import KneeSearch
from limits import Limits
from locust import LoadTestShape
from locust.env import Environment
from percentiles import Counts

SPAWN_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class Level:
    """One rate that was tried.

    Attributes:
        rate: arrivals a second.
        counts: of the requests that arrived at it.
        is_good: whether it kept to the limits.
        waited: whether requests waited for a free user.
    """

    rate: float
    counts: Counts
    is_good: bool
    waited: bool = False

    def remark(self) -> str:
        """Return what is to be said of it; nothing where it is good."""
        if self.is_good:
            return ""
        busy = ", all users were busy: more --users may reach further" if self.waited else ""
        return f"   over the limits{busy}"


@dataclass
class Ramp(LoadTestShape):
    """Lets requests arrive for a step, waits until all are answered, and judges them.

    Attributes:
        environment: locust's.
        search: chooses the rates.
        limits: p99 and the share of failures are looked at.
        step: seconds for each rate.
        settle: seconds until all counts have arrived here.
        set_rate: changes the rate of arrivals; 0 stops them.
        pending: tells how many requests are due or sent, and not yet counted.
        is_whole: tells whether all workers are still there; without one no rate is what it says.
        levels: what was tried.
        is_over: whether the search came to its end.
    """

    abstract = True  # or locust would take it for the shape of every run

    environment: Environment
    search: KneeSearch
    limits: Limits
    step: float
    settle: float
    set_rate: Callable[[float], None]
    pending: Callable[[], int]
    is_whole: Callable[[], bool]
    levels: list[Level] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._begun = self._ended = None
        self._rate = 0.0
        self._waited = False
        self.is_over = False
        self._asked_for_users = self._gave_up = False

    def tick(self) -> tuple[int, float] | None:
        """Go on, once a second; None ends the run."""
        users = self.environment.parsed_options.num_users or 1
        if not self._asked_for_users:
            self._asked_for_users = True
        elif not self.levels and self.environment.runner.user_count < users:
            # Workers first make their pictures; where they cannot, no users come.
            self._gave_up = self.get_run_time() > SPAWN_TIMEOUT
            if self._gave_up:
                return None
        elif not self._go_on(time.perf_counter()):
            return None
        return users, users

    def _go_on(self, now: float) -> bool:
        """Begin, end or judge a level; tells whether there is more to do."""
        if not self.is_whole():
            return False
        if self._ended is not None and now - self._ended >= self.settle and self.pending() == 0:
            self._judge()
            self._begun = self._ended = None
        if self._begun is None:
            rate = self.search.rate()
            if rate is None:
                self.is_over = True
                return False
            self._rate = rate
            self._before = Counts.of(self.environment)
            self._begun = now
            self._waited = False
            self.set_rate(self._rate)
            return True
        self._waited |= self.pending() > self.environment.runner.user_count
        if self._ended is None and now - self._begun >= self.step:
            self.set_rate(0)
            self._ended = now
        return True

    def _judge(self) -> None:
        counts = Counts.of(self.environment) - self._before
        is_good = all(kept for kept, _ in self.limits.verdict(counts.figures(self.step)))
        self.levels.append(Level(self._rate, counts, is_good, self._waited))
        self.search.found(self._rate, is_good)

    def lines(self) -> list[str]:
        """Return the levels as a table, and the knee."""
        table = ["  rate/s   requests   p50 ms   p99 ms   failures"]
        for level in sorted(self.levels, key=lambda level: level.rate):
            counts = level.counts
            row = f"{level.rate:8.1f} {counts.requests:10d} {counts.percentile(0.5):8g} "
            row += f"{counts.percentile(0.99):8g} {counts.failures:10d}"
            table.append(row + level.remark())
        return [*table, self._summary()]

    def _summary(self) -> str:
        limit = f"p99 of {self.limits.max_p99:g} ms"
        if self._gave_up:
            return "no knee: no users came to send requests"
        if not self.is_over:
            kept = f"{self.search.good:.1f} requests/s kept the {limit}" if self.search.good else ""
            return f"interrupted, the knee is not known: {kept or 'no rate kept the ' + limit}"
        if not self.search.good:
            return f"no knee: {self.search.start:g} requests/s already exceed the {limit}"
        if self.search.bad is None:
            return f"no knee up to {self.search.good:.1f} requests/s, which keep the {limit}"
        return (
            f"knee: {self.search.good:.1f} requests/s keep the {limit}, "
            f"{self.search.bad:.1f} do not"
        )
