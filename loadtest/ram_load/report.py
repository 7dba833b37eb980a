"""What a run came to: percentiles, limits, the course over time, the picture."""

import math
import re
import time
import urllib.request
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import numpy as np
from locust.env import Environment
from locust.stats import calculate_response_time_percentile
from ram_triton.files import write_atomically

INTERVAL = 1.0  # seconds
FIRST_READ = 5.0  # seconds: a picture without the first metrics has none at all
QUEUE = "nv_inference_queue_duration_us"
ANSWERED = "nv_inference_request_success"
METRIC = re.compile(rf'^({QUEUE}|{ANSWERED}){{model="([^"]+)",[^}}]*}} ([\d.e+]+)$', re.M)
NOTICEABLE = 0.02  # of the longest wait: curves below it lie on zero


def say(text: str) -> None:
    """Print a line about the test, at once."""
    print(f"load: {text}", flush=True)


@dataclass(frozen=True)
class Counts:
    """Requests, their failures and latencies; a difference is of those in between.

    Attributes:
        requests: how many, right and wrong, those included that were never sent.
        failures: how many of them failed: errors, wrong answers, requests that were never sent.
        latencies: how many took this many milliseconds, to four digits.
    """

    requests: int = 0
    failures: int = 0
    latencies: Counter[float] = field(default_factory=Counter)

    @classmethod
    def of(cls, environment: Environment, latencies: Counter[float]) -> "Counts":
        """Return locust's totals so far, with their latencies."""
        total = environment.stats.total
        return cls(total.num_requests, total.num_failures, Counter(latencies))

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(
            self.requests - before.requests,
            self.failures - before.failures,
            self.latencies - before.latencies,
        )

    def percentile(self, share: float) -> float:
        """Return a latency in milliseconds; NaN if nothing was counted."""
        if not self.requests:
            return math.nan
        # Of integers, says locust's annotation, but it only compares and returns them.
        latencies: Any = self.latencies
        return float(calculate_response_time_percentile(latencies, self.requests, share))


def round_latency(milliseconds: float) -> float:
    """Round to four digits, where locust rounds to two.

    A second histogram, because locust sorts its own dozens of times per second for its tables.
    """
    return float(f"{milliseconds:.4g}")


def judge(options: Namespace, counts: Counts, seconds: float) -> list[tuple[bool, str]]:
    """Return for each limit of the options whether it was kept, and a line that states it."""
    requests, failures, limit = counts.requests, counts.failures, options.max_failures
    share = failures / requests if requests else 1.0
    text = f"failures   {failures} of {requests} requests ({share:.2%}), limit {limit:.2%}"
    lines = [(requests > 0 and share <= limit, text)]
    if options.max_p99:
        p99 = counts.percentile(0.99)
        text = f"p99        {p99:g} ms, limit {options.max_p99:g} ms"
        lines.append((p99 <= options.max_p99, text))
    rate = (requests - failures) / seconds if seconds > 0 else 0.0
    if not options.min_throughput:
        arrived = requests / seconds if seconds > 0 else 0.0
        lines.append((requests > 0, f"goodput    {rate:.1f} right answers/s of {arrived:.1f} sent"))
    else:
        text = f"throughput {rate:.1f} right answers/s, limit {options.min_throughput:g}"
        lines.append((rate >= options.min_throughput, text))
    return lines


Queues = dict[str, Counter[str]]


def read_queues(url: str, seconds: float) -> Queues:
    """Read how long each model's requests waited, in microseconds, and how many it answered.

    Args:
        url: of the metrics.
        seconds: within which they have to come.

    Returns:
        Both by the metric's name, by model; nothing if the metrics cannot be read.
    """
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            text = response.read().decode()
    except (OSError, ValueError):
        return {}
    queues: Queues = defaultdict(Counter)
    for metric, model, value in METRIC.findall(text):
        queues[model][metric] += float(value)  # type: ignore[assignment]  # Counter takes floats
    return queues


class Sample(NamedTuple):
    """One interval of a run.

    Attributes:
        time: seconds since the run began.
        seconds: its length.
        counts: of the requests that were answered in it.
        queue: by model, the mean milliseconds that its requests waited; without idle models.
    """

    time: float
    seconds: float
    counts: Counts
    queue: dict[str, float]


class Timeline:
    """Takes a sample per second.

    Args:
        count: returns the totals so far.
        metrics_url: Triton's metrics; if it is empty or not reached, samples have no queue times.

    Attributes:
        samples: taken so far.
    """

    def __init__(self, count: Callable[[], Counts], metrics_url: str) -> None:
        self.samples: list[Sample] = []
        self._count = count
        self._metrics_url = metrics_url
        self._began = self._last = time.perf_counter()
        self._counts = count()
        self._queues = read_queues(metrics_url, FIRST_READ)
        if metrics_url and not self._queues:
            say(
                f"metrics not reached at {metrics_url}: the picture is without the server's "
                "queues; --metrics-url specifies another address"
            )
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
        queues = read_queues(self._metrics_url, INTERVAL) if self._queues else {}
        now, counts = time.perf_counter(), self._count()
        waits = {}
        for model, totals in queues.items():
            passed = totals - self._queues.get(model, Counter())
            if passed[ANSWERED]:
                waits[model] = passed[QUEUE] / passed[ANSWERED] / 1000
        sample = Sample(now - self._began, now - self._last, counts - self._counts, waits)
        self.samples.append(sample)
        self._last, self._counts = now, counts
        self._queues = queues or self._queues  # a server that stalls reports it later


def draw(samples: list[Sample], path: Path, title: str, max_p99: float) -> None:
    """Draw latency, answers and the waits in the server's queues over time, as PNG.

    Args:
        samples: of the run.
        path: of the picture.
        title: states the load.
        max_p99: the limit in milliseconds, or 0.

    Raises:
        OSError: the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    counted = [sample for sample in samples if sample.counts.requests]
    # What came after the last full second would look like a peak.
    samples = [sample for sample in samples if sample.seconds > INTERVAL / 2]
    has_queues = any(sample.queue for sample in samples)
    rows = 3 if has_queues else 2
    figure, every = pyplot.subplots(rows, sharex=True, figsize=(10, 3 * rows))
    latency, answers = every[:2]
    times = [sample.time for sample in counted]
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        values = [sample.counts.percentile(share) for sample in counted]
        latency.plot(times, values, marker=".", label=name)
    if max_p99:
        latency.axhline(max_p99, color="grey", linestyle="--", label="limit of p99")
    latency.set(ylabel="latency, ms", yscale="log", title=f"RAM under load: {title}")
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_minor_formatter(NullFormatter())
    times = [sample.time for sample in samples]
    failures = [sample.counts.failures / sample.seconds for sample in samples]
    requests = [sample.counts.requests / sample.seconds for sample in samples]
    answers.plot(times, np.subtract(requests, failures), marker=".", label="right")
    answers.plot(times, failures, marker=".", label="failures")
    answers.set(ylabel="answers/s")
    if has_queues:
        _draw_queues(every[2], samples)
    every[-1].set(xlabel="seconds")
    for axes in every:
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))  # beside the curves
    write_atomically(path, lambda file: figure.savefig(file, dpi=100, bbox_inches="tight"))
    pyplot.close(figure)


def _draw_queues(axes: Any, samples: list[Sample]) -> None:
    """Draw the mean wait in each model's queue, and name the models whose requests wait."""
    times = [sample.time for sample in samples]
    waits = {
        model: [sample.queue.get(model, math.nan) for sample in samples]
        for model in sorted({model for sample in samples for model in sample.queue})
    }
    longest = {
        model: max(value for value in values if value == value) for model, values in waits.items()
    }
    least = NOTICEABLE * max(longest.values())
    for model, values in waits.items():
        if longest[model] > least:
            axes.plot(times, values, marker=".", label=model)
    others = sum(1 for wait in longest.values() if wait <= least)
    note = f"\n{others} models below {least:.2g} ms are left out" if others else ""
    axes.set(ylabel=f"mean wait in Triton's queue, ms{note}", ylim=(0, None))


def set_title(path: Path, title: str) -> None:
    """Give locust's HTML report a title of its own, which locust has no option for.

    Raises:
        OSError: the report cannot be read or written.
    """
    text = path.read_text(encoding="utf-8")
    text = text.replace("<title>Locust</title>", f"<title>{title}</title>")
    write_atomically(path, text.replace("Locust Test Report", title))
