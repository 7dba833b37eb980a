"""A benchmark's result as tables, in Markdown: readable as it is, and in a README."""

from collections.abc import Iterator, Sequence

from ram_triton.bench.figure import show
from ram_triton.bench.result import Result

GIGA = 1e9


def lines(result: Result) -> Iterator[str]:
    """Yield the tables line by line."""
    machine, model = result.machine, result.model
    where = f"{machine['cores']} cores of {machine['processor']}"
    where += f", {machine['gpu']}" if machine["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{model['variant']}, on {where}"
    yield f"({versions})"
    if machine["gpu_unused"]:
        yield f"All on the CPU, although a GPU is here: {machine['gpu_unused']}"
    if model["note"]:
        yield f"Model: {model['note']}"
    yield f"Served answers: {result.agreement}"
    yield "Each figure is the median of its rounds, with the lowest and the highest; p99 is that of"
    yield "all n requests in all rounds together, of fewer than 100 the slowest."
    yield ""
    yield from _table(
        ("what", "precision", "batch", "clients", "n", "images/s", "p50 ms", "p99 ms"),
        (
            (
                each.way,
                each.precision,
                each.batch,
                each.concurrency,
                each.requests,
                each.throughput,
                each.latency(0.5),
                show(each.latency_of_all(0.99)),
            )
            for each in result.competitors
        ),
    )
    yield ""
    parts = ("queue", "input", "infer", "output", "total")
    yield "What a request spends in each step, in milliseconds, by Triton's statistics"
    yield ""
    yield from _table(
        ("batch", "clients", "step", *parts),
        (
            (
                row["batch"],
                row["concurrency"],
                row["step"],
                *(f"{row[f'{part}_ms']:.2f}" for part in parts),
            )
            for row in result.steps()
        ),
    )
    yield ""
    yield from _table(
        (
            "picture, decoded on one core",
            "MB",
            "ms",
            "ms at full size",
            "times faster",
            "mean difference, of 255",
        ),
        (
            (
                each.picture,
                f"{each.megabytes:.1f}",
                each.milliseconds,
                each.full_size,
                each.times_faster,
                f"{each.difference:.2f}",
            )
            for each in result.decodings
        ),
    )
    yield ""
    yield from _table(
        ("preprocessor", "clients", "images/s"),
        ((each.way, each.concurrency, each.throughput) for each in result.preprocessor),
    )
    yield ""
    yield from _table(("mark", "reached"), result.marks().items())
    yield ""
    per_product, per_image = result.products
    speed = result.product.throughput.median * per_product / GIGA
    yield (
        f"An image costs {show(per_image / GIGA)} GMAC; the machine's matrix product in "
        f"{result.product.precision} does {show(speed)} GMAC/s."
    )
    if result.memory:
        yield f"The server's memory at its peak: {show(result.memory / GIGA)} GB."


def _table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> Iterator[str]:
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
