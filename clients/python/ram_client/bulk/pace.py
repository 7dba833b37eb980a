"""How many requests a server gets at once: additive increase, multiplicative decrease (AIMD).

The number doubles per round until the server resists, then grows by one per round; a round is as
many answers as requests may be in flight. A refusal (its queue is full) or a timeout shrinks it by
three tenths, and answers that take much longer than the fastest round's by a tenth: by then more
requests only wait longer in the server's queues.
"""

import statistics

FIRST = 2
AFTER_REFUSAL = 0.7
WHEN_SLOW = 0.9
# A batching server answers full batches later than single requests: only much longer is a queue.
SLOW = 8.0
ROUND = 8  # answers, at least: a median of fewer says little


class Pace:
    """The number of requests that one server gets at once.

    Args:
        most: the number is at most that.
    """

    def __init__(self, most: int):
        self._most = most
        self._fastest = float("inf")
        self.restart()

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return int(self._limit)

    def restart(self) -> None:
        """Begin anew, for a server that was away."""
        self._limit = float(min(FIRST, self._most))
        self._doubling = True
        self._seconds: list[float] = []
        self._shrunk_at = float("-inf")

    def answered(self, seconds: float) -> None:
        """Take note of an answer and the time it took."""
        self._seconds.append(seconds)
        if len(self._seconds) < max(ROUND, self.limit):
            return
        median = statistics.median(self._seconds)
        self._seconds = []
        self._fastest = min(self._fastest, median)
        if median > SLOW * self._fastest:
            self._doubling = False
            self._limit = max(1.0, self._limit * WHEN_SLOW)
        else:
            self._limit = min(self._most, self._limit * 2 if self._doubling else self._limit + 1)

    def refused(self, sent_at: float, now: float) -> None:
        """Take note of a refusal; those of requests sent before the last one shrank count once."""
        if sent_at < self._shrunk_at:
            return
        self._shrunk_at = now
        self._doubling = False
        self._seconds = []
        self._limit = max(1.0, self._limit * AFTER_REFUSAL)
