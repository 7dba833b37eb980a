"""The open loop: requests arrive when they are due, whether or not the server keeps up."""

import time
from collections.abc import Iterator

import gevent
from gevent.queue import Empty, Queue

ROUNDING = 1e-6  # of a step: what sums of times may lack


def due_times(
    rates: list[float], step: float, start: float, share: tuple[int, int] = (0, 1)
) -> Iterator[float]:
    """Yield when requests are due, without end.

    Args:
        rates: requests a second, of all processes together; each holds for a step, the last on.
        step: seconds.
        start: the clock when the first is due.
        share: this process's number, from 0, and how many there are: they take turns.
    """
    number, processes = share
    due, count = start, 0
    while True:
        if count % processes == number:
            yield due
        count += 1
        due += 1 / rates[min(int((due - start) / step + ROUNDING), len(rates) - 1)]


class Arrivals:
    """Hands out the times at which requests are due, to whoever is free.

    A request that finds nobody free waits here, and its latency runs from the time when it was due:
    a server that stalls cannot hide behind requests that were therefore not sent.
    """

    def __init__(self, share: tuple[int, int] = (0, 1)):
        self._share = share
        self._waiting: Queue = Queue()
        self._clock: gevent.Greenlet | None = None

    def start(self, rates: list[float], step: float = float("inf")) -> None:
        """Let requests arrive at these rates from now on, in place of what went before."""
        self.pause()
        times = due_times(rates, step, time.perf_counter(), self._share)
        self._clock = gevent.spawn(self._run, times)

    def start_once(self, rates: list[float], step: float) -> None:
        """Start, unless requests arrive already."""
        if self._clock is None:
            self.start(rates, step)

    def pause(self) -> None:
        """Let no more requests arrive; those that wait stay."""
        if self._clock:
            self._clock.kill()
            self._clock = None

    def next(self) -> float:
        """Wait for a request; returns when it was due, as `time.perf_counter` tells it."""
        return self._waiting.get()

    def waiting(self) -> int:
        """Return how many requests are due and not sent."""
        return self._waiting.qsize()

    def close(self) -> list[float]:
        """End; returns when the requests were due that nobody sent."""
        self.pause()
        unsent = []
        while True:
            try:
                unsent.append(self._waiting.get_nowait())
            except Empty:
                return unsent

    def _run(self, times: Iterator[float]) -> None:
        for due in times:
            # Also where it is late: without a pause nobody else would run.
            gevent.sleep(max(0.0, due - time.perf_counter()))
            self._waiting.put(due)
