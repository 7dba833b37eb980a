"""The picture of a run: latency, answers and the server's queues over time."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullFormatter
from timeline import INTERVAL, Sample


def draw(samples: list[Sample], path: Path, max_p99: float) -> None:
    """Write the picture as PNG, at once or not at all.

    Args:
        samples: of the run.
        path: of the picture.
        max_p99: limit in milliseconds; 0 is none.
    """
    figure, (latency, answers, queue) = pyplot.subplots(3, sharex=True, figsize=(10, 9))
    counted = [sample for sample in samples if sample.counts.requests]
    times = [sample.time for sample in counted]
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        values = [sample.counts.percentile(share) for sample in counted]
        latency.plot(times, values, marker=".", label=name)
    if max_p99:
        latency.axhline(max_p99, color="grey", linestyle="--", label="limit of p99")
    latency.set(ylabel="latency, ms", yscale="log", title="RAM under load, second by second")
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_minor_formatter(NullFormatter())
    # What came after the last full second would stand there as a peak.
    samples = [sample for sample in samples if sample.seconds > INTERVAL / 2]
    every = [sample.time for sample in samples]
    for name, values in {
        "right": [_rate(s, s.counts.requests - s.counts.failures) for s in samples],
        "failures": [_rate(s, s.counts.failures) for s in samples],
    }.items():
        answers.plot(every, values, marker=".", label=name)
    answers.set(ylabel="answers/s")
    for model in sorted({model for sample in samples for model in sample.queue}):
        values = [sample.queue.get(model, math.nan) for sample in samples]
        queue.plot(every, values, marker=".", label=model)
    queue.set(ylabel="mean wait in Triton's queue, ms", xlabel="seconds")
    for axes in (latency, answers, queue):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))  # beside the curves
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(unfinished, format="png", dpi=100, bbox_inches="tight")
    pyplot.close(figure)
    unfinished.replace(path)


def _rate(sample: Sample, count: int) -> float:
    return count / sample.seconds if sample.seconds > 0 else 0.0
