"""Latency over time, and the time that requests spent in the server's queues."""

import re
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
from locust.env import Environment
from percentiles import Counts

INTERVAL = 1.0  # seconds
QUEUE = "nv_inference_queue_duration_us"
ANSWERED = "nv_inference_request_success"
METRIC = re.compile(rf'^({QUEUE}|{ANSWERED}){{model="([^"]+)",[^}}]*}} ([\d.e+]+)$', re.M)


@dataclass(frozen=True)
class Sample:
    """One interval.

    Attributes:
        time: seconds since the run began.
        seconds: how long it was.
        counts: of the requests that were answered in it.
        queue: by model, mean milliseconds that its requests waited; without those that had none.
    """

    time: float
    seconds: float
    counts: Counts
    queue: dict[str, float]


@dataclass
class Timeline:
    """Takes a sample each second.

    Attributes:
        environment: locust's.
        metrics_url: Triton's metrics; where they cannot be read, samples are without queue times.
        samples: taken so far.
    """

    environment: Environment
    metrics_url: str
    samples: list[Sample] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        self._began = self._last = time.perf_counter()
        self._counts = Counts.of(self.environment)
        self._queues = read_queues(self.metrics_url)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Take the last sample."""
        self._greenlet.kill()
        self._take()

    def _run(self) -> None:
        while True:
            gevent.sleep(INTERVAL)
            self._take()

    def _take(self) -> None:
        queues = read_queues(self.metrics_url)
        now, counts = time.perf_counter(), Counts.of(self.environment)
        sample = Sample(
            now - self._began,
            now - self._last,
            counts - self._counts,
            dict(_mean_waits(self._queues, queues)),
        )
        self.samples.append(sample)
        self._last, self._counts = now, counts
        self._queues = queues or self._queues  # a server that stalls tells it later


Queues = dict[str, Counter[str]]


def read_queues(url: str) -> Queues:
    """Read each model's time in the queue, in microseconds, and its answered requests.

    Returns:
        Both by the metric's name, by model; nothing where the metrics cannot be read.
    """
    try:
        with urllib.request.urlopen(url, timeout=INTERVAL) as response:
            text = response.read().decode()
    except (OSError, ValueError):
        return {}
    queues: Queues = defaultdict(Counter)
    for metric, model, value in METRIC.findall(text):
        queues[model][metric] += float(value)
    return queues


def _mean_waits(before: Queues, after: Queues) -> Iterator[tuple[str, float]]:
    for model, totals in after.items():
        passed = totals - before.get(model, Counter())
        if passed[ANSWERED]:
            yield model, passed[QUEUE] / passed[ANSWERED] / 1000
