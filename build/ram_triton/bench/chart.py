"""A benchmark's result as a picture: throughput and latency against concurrency."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ram_triton.bench.figure import Figure
from ram_triton.bench.result import Result
from ram_triton.bench.ways import ENGINE, GRPC, PYTORCH

LINES = {PYTORCH: ":", ENGINE: "--"}


def draw(result: Result, path: Path) -> None:
    """Write the picture as PNG, at once or not at all."""
    figure, (throughput, latency) = pyplot.subplots(1, 2, figsize=(12, 5))
    served = [each for each in result.competitors if each.way == GRPC]
    batches = sorted({each.batch for each in result.competitors})
    for number, batch in enumerate(batches):
        points = sorted(
            (each for each in served if each.batch == batch), key=lambda each: each.concurrency
        )
        clients = [each.concurrency for each in points]
        style = {"color": f"C{number}", "marker": "o", "capsize": 3}
        name = f"gRPC, {batch} a request"
        _plot(throughput, clients, [each.throughput for each in points], label=name, **style)
        name = f"p50, {batch} a request"
        _plot(latency, clients, [each.latency(0.5) for each in points], label=name, **style)
        name = f"p99 of all rounds, {batch} a request"
        values = [each.latency_of_all(0.99) for each in points]
        latency.plot(clients, values, f"C{number}o:", label=name)
    for each in result.competitors:
        if each.way in LINES:
            name = f"{each.way}, {each.precision}, batch of {each.batch}"
            style = {"color": f"C{batches.index(each.batch)}", "linestyle": LINES[each.way]}
            throughput.axhline(each.throughput.median, label=name, linewidth=1, **style)
    throughput.set(xlabel="clients at once", ylabel="images/s")
    throughput.set_ylim(bottom=0)
    latency.set(xlabel="clients at once", ylabel="latency, ms", yscale="log")
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_minor_formatter(NullFormatter())
    for axes in (throughput, latency):
        axes.set_xticks(sorted({each.concurrency for each in served}))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize="small")
    machine = result.machine
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    figure.suptitle(f"{result.model['variant']}, on {where}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    figure.savefig(unfinished, format="png", dpi=100, bbox_inches="tight")
    pyplot.close(figure)
    unfinished.replace(path)


def _plot(axes: Axes, clients: Sequence[int], figures: Sequence[Figure], **style: object) -> None:
    """Draw medians, with bars from the lowest to the highest."""
    medians = [each.median for each in figures]
    below = [each.median - min(each.values) for each in figures]
    above = [max(each.values) - each.median for each in figures]
    axes.errorbar(clients, medians, yerr=(below, above), **style)
