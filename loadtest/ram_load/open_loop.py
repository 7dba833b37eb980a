"""The open loop: requests arrive when they are due, whether or not the server keeps up.

The ramp looks for the knee: the highest rate of arrivals that still keeps the limits.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gevent
from gevent.queue import Queue
from locust import LoadTestShape
from locust.env import Environment

from ram_load.options import options_of
from ram_load.report import judge

if TYPE_CHECKING:
    from ram_load.distributed import Session, Workers

ROUNDING = 1e-6  # of a step: what sums of times may lack
FACTOR = 2.0  # from one rate to the next, until one is too high
SPAWN_TIMEOUT = 120.0  # seconds
CHECK_INTERVAL = 0.1  # seconds


def due_times(
    rates: list[float], step: float, start: float, share: tuple[int, int] = (0, 1)
) -> Iterator[float]:
    """Yield when requests are due, without end.

    Args:
        rates: requests per second, of all processes together; each lasts for a step, the last one
            without end.
        step: seconds.
        start: when the first one is due.
        share: this process's number, from 0, and how many processes share the requests in turn.
    """
    number, processes = share
    due, count = start, 0
    while True:
        if count % processes == number:
            yield due
        count += 1
        due += 1 / rates[min(int((due - start) / step + ROUNDING), len(rates) - 1)]


class Arrivals:
    """Gives the times at which requests are due to the users that are free.

    A request that finds no user free waits here, and its latency counts from when it was due: a
    server that stalls cannot hide behind requests that were not sent because of that.
    """

    def __init__(self) -> None:
        self._waiting = Queue()
        self._clock: gevent.Greenlet | None = None

    def start(self, rates: list[float], step: float, share: tuple[int, int]) -> None:
        """Let requests arrive at these rates from now on; none arrive without rates.

        Those that wait stay. The arguments are those of `due_times`.
        """
        if self._clock:
            self._clock.kill()
        self._clock = None
        if rates:
            times = due_times(rates, step, time.perf_counter(), share)
            self._clock = gevent.spawn(self._run, times)

    def next(self) -> float:
        """Wait for a request; returns when it was due, on the clock of `time.perf_counter`."""
        return float(self._waiting.get())

    def count_waiting(self) -> int:
        """Return how many requests are due and not sent."""
        return int(self._waiting.qsize())

    def close(self) -> list[float]:
        """End; returns when the requests were due that were never sent."""
        self.start([], 0, (0, 1))
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]

    def _run(self, times: Iterator[float]) -> None:
        for due in times:
            # Even if it is late: without a pause no other greenlet would run.
            gevent.sleep(max(0.0, due - time.perf_counter()))
            self._waiting.put(due)


@dataclass
class KneeSearch:
    """Doubles the rate until one is too high, then halves the distance in between.

    Attributes:
        start: the first rate.
        maximum: the highest rate.
        precision: the knee is known when the lowest bad rate exceeds it by at most this share.
        good: the highest rate that was good; 0 at first.
        bad: the lowest rate that was not; None at first.
    """

    start: float
    maximum: float
    precision: float
    good: float = 0.0
    bad: float | None = None

    def next_rate(self) -> float | None:
        """Return the rate to try next, or None when the search is over."""
        if self.bad is None:
            if self.good >= self.maximum:
                return None
            return min(self.good * FACTOR or self.start, self.maximum)
        if not self.good or self.bad <= self.good * (1 + self.precision):
            return None
        return math.sqrt(self.good * self.bad)

    def record(self, rate: float, is_good: bool) -> None:
        """Record whether a rate was good."""
        if is_good:
            self.good = rate
        else:
            self.bad = rate


class Ramp(LoadTestShape):
    """Lets requests arrive at a rate for a step, waits for all answers, and judges them.

    Args:
        environment: locust's.
        senders: send the requests.

    Attributes:
        search: chooses the rates.
        is_over: whether the search came to its end.
    """

    abstract = True  # otherwise locust takes it for the shape of every run

    def __init__(self, environment: Environment, senders: "Session | Workers") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._options = options = options_of(environment)
        self.search = KneeSearch(options.ramp_from, options.ramp_to, options.ramp_precision)
        self.is_over = False
        assert environment.runner is not None
        self._runner = environment.runner
        self._senders = senders
        self._users = options.num_users or 1
        self._rows: dict[float, str] = {}
        self._has_asked_for_users = self._has_given_up = False

    def tick(self) -> tuple[int, float] | None:
        """Ask for the users in the first call, search in the second; None ends the run."""
        if self._has_asked_for_users:
            self._search()
            return None
        self._has_asked_for_users = True
        return self._users, self._users

    def lines(self) -> list[str]:
        """Return the rates that were tried as a table, and the knee."""
        table = ["  rate/s   requests   p50 ms   p99 ms   failures"]
        return [*table, *(row for _, row in sorted(self._rows.items())), self._summary()]

    def _search(self) -> None:
        began = time.perf_counter()
        while self._runner.user_count < self._users:  # without pictures workers have no users
            gevent.sleep(CHECK_INTERVAL)
            if time.perf_counter() - began > SPAWN_TIMEOUT:
                self._has_given_up = True
                return
        while rate := self.search.next_rate():
            is_good = self._try(rate)
            if self._senders.count_lost():
                return
            self.search.record(rate, is_good)
        self.is_over = True

    def _try(self, rate: float) -> bool:
        before = self._senders.counts()
        has_waited = False
        self._senders.set_rates([rate])
        end = time.perf_counter() + self._options.ramp_step
        while (left := end - time.perf_counter()) > 0:
            gevent.sleep(min(left, CHECK_INTERVAL))
            has_waited |= self._senders.count_pending() > self._runner.user_count
        self._senders.set_rates([])
        gevent.sleep(self._senders.settle_time)
        while self._senders.count_pending() and not self._senders.count_lost():
            gevent.sleep(CHECK_INTERVAL)
        counts = self._senders.counts() - before
        is_good = all(kept for kept, _ in judge(self._options, counts, self._options.ramp_step))
        remark = "" if is_good else "   over the limits"
        if has_waited and not is_good:
            remark += ", all users were busy: more --users may reach further"
        p50, p99 = counts.percentile(0.5), counts.percentile(0.99)
        numbers = f"{counts.requests:10d} {p50:8g} {p99:8g} {counts.failures:10d}"
        self._rows[rate] = f"{rate:8.1f} {numbers}{remark}"
        return is_good

    def _summary(self) -> str:
        limit = f"p99 of {self._options.max_p99:g} ms"
        good, bad = self.search.good, self.search.bad
        if self._has_given_up:
            return "no knee: there were no users to send requests"
        if not self.is_over:
            kept = (
                f"{good:.1f} requests/s kept the {limit}" if good else f"no rate kept the {limit}"
            )
            return f"interrupted, the knee is not known: {kept}"
        if not good:
            return f"no knee: {self.search.start:g} requests/s already exceed the {limit}"
        if bad is None:
            return f"no knee up to {good:.1f} requests/s, which keep the {limit}"
        return f"knee: {good:.1f} requests/s keep the {limit}, {bad:.1f} do not"
