"""A benchmark's result: what was measured, what follows from it, as JSON, tables and a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ram_triton.bench.candidates import ENGINE, GRPC, PYTORCH, Candidate, TritonCandidate
from ram_triton.bench.measurement import Measurement, markdown_table, three_digits
from ram_triton.bench.preprocessing import POSTPROCESSED, Decoding
from ram_triton.bench.triton_steps import COLUMNS
from ram_triton.files import write_atomically
from ram_triton.parity.compare import Agreement

GIGA = 1e9
SHORT = 50.0  # milliseconds in the engines: in less, a request's other costs weigh heavily
# Names of marks.
OVER_PYTORCH = "gRPC, times PyTorch's throughput"
OVER_PRODUCT = "engine, share of the matrix product"
OVER_ENGINE = "Triton's own time, share of the engine's"


class Mark(NamedTuple):
    """A figure that shows how good something is, round by round, at a batch size if it has one."""

    name: str
    batch: int | None
    value: Measurement


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        machine: as `describe_machine` returns it.
        model: what was served: variant, checkpoint, note.
        settings: how it was measured.
        agreement: how far the server's logits agree with the reference's.
        candidates: PyTorch, engine, and Triton at each batch size and concurrency.
        product: the machine's matrix product.
        products: multiplications of that product, and those of one image.
        preprocessor: the served one, for one client and for several.
        decodings: of single pictures.
        postprocessing: milliseconds per full batch.
        memory: the server's, in bytes at its peak; None if it was started elsewhere.
    """

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, object]
    agreement: Agreement
    candidates: Sequence[Candidate]
    product: Candidate
    products: tuple[int, int]
    preprocessor: Sequence[Candidate]
    decodings: Sequence[Decoding]
    postprocessing: Measurement
    memory: int | None

    @property
    def batches(self) -> list[int]:
        """The batch sizes, in order."""
        return sorted({each.batch for each in self.candidates})

    def find(self, name: str, batch: int, concurrency: int = 1) -> Candidate | None:
        """Return one of the candidates, None if it was not measured."""
        for each in self.candidates:
            if (each.name, each.batch, each.concurrency) == (name, batch, concurrency):
                return each
        return None

    def steps(self) -> list[dict[str, Any]]:
        """Return Triton's statistics of each step, at each batch size and concurrency."""
        return [
            {"batch": each.batch, "concurrency": each.concurrency} | row
            for each in self.candidates
            if isinstance(each, TritonCandidate)
            for row in each.total().as_rows()
        ]

    def marks(self) -> list[Mark]:
        """Return the ratios between what was measured."""
        marks = []
        per_product, per_image = self.products
        for batch in self.batches:
            pytorch, engine, served = (self.find(name, batch) for name in (PYTORCH, ENGINE, GRPC))
            if pytorch and served:
                marks.append(Mark(OVER_PYTORCH, batch, served.throughput.over(pytorch.throughput)))
            if engine:
                share = engine.throughput.over(self.product.throughput)
                share = share.map(lambda value: value * per_image / per_product)
                marks.append(Mark(OVER_PRODUCT, batch, share))
            if isinstance(served, TritonCandidate):
                shares = tuple(each.tritons_share() for each in served.statistics)
                marks.append(Mark(OVER_ENGINE, batch, Measurement(shares)))
        for each in self.decodings:
            if each.difference:  # without a reduced scale both ways are the same
                name = f"{each.picture}: times faster than at full size"
                marks.append(Mark(name, None, each.times_faster))
        one, *several = self.preprocessor
        for many in several:
            name = f"preprocessor on {self.machine['cores']} cores, {many.concurrency} clients"
            ratio = many.throughput.over(one.throughput)
            marks.append(Mark(f"{name}, times one client's throughput", None, ratio))
        marks.append(Mark("postprocessor, ms per batch", POSTPROCESSED, self.postprocessing))
        return marks

    def engine_milliseconds(self) -> float | None:
        """Return the shortest time of a request in the engines, None if no server was timed."""
        served = [each for each in self.candidates if isinstance(each, TritonCandidate)]
        return min((each.total().engine_milliseconds() for each in served), default=None)

    def as_dict(self) -> dict[str, object]:
        """Return everything by name, for JSON."""
        return {
            "machine": self.machine,
            "model": self.model,
            "settings": self.settings,
            "agreement": self.agreement.as_dict(),
            "throughput": [each.as_dict() for each in self.candidates],
            "steps": self.steps(),
            "matrix_product": self.product.as_dict()
            | {"products": self.products[0], "products_of_an_image": self.products[1]},
            "preprocessor": {
                "served": [each.as_dict() for each in self.preprocessor],
                "one_core": [each.as_dict() for each in self.decodings],
            },
            "postprocessor_ms": self.postprocessing.as_dict(),
            "server_peak_bytes": self.memory,
            "marks": [
                {"name": name, "batch": batch} | value.as_dict()
                for name, batch, value in self.marks()
            ],
        }

    def where(self) -> str:
        """Return what it was measured on, for titles."""
        machine = self.machine
        gpu = f", {machine['gpu']}" if machine["gpu"] else ""
        return f"{machine['cores']} cores of {machine['processor']}{gpu}"


def lines(result: Result) -> Iterator[str]:
    """Yield the result as Markdown tables, line by line: readable as they are, and in a README."""
    yield from _introduction(result)
    yield ""
    yield from markdown_table(
        ("what", "precision", "batch", "clients", "n", "images/s", "p50 ms", "p99 ms"),
        (
            (
                each.name,
                each.precision,
                each.batch,
                each.concurrency,
                each.requests,
                each.throughput,
                each.latency(0.5),
                three_digits(each.latency_of_all(0.99)),
            )
            for each in result.candidates
        ),
    )
    shortest = result.engine_milliseconds()
    if shortest is not None and shortest < SHORT:
        yield ""
        yield (
            f"The engines take only {three_digits(shortest)} ms per request here, so that what "
            "any request costs (decoding,\ncopies, queues) weighs heavily; the larger the model, "
            "the less it does."
        )
    yield ""
    yield "A request's milliseconds in each step, by Triton's statistics"
    yield ""
    yield from markdown_table(
        ("batch", "clients", "step", *COLUMNS),
        (
            (
                row["batch"],
                row["concurrency"],
                row["step"],
                *(f"{row[f'{part}_ms']:.2f}" for part in COLUMNS),
            )
            for row in result.steps()
        ),
    )
    yield ""
    yield from markdown_table(
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
    yield from markdown_table(
        ("preprocessor", "clients", "images/s"),
        ((each.name, each.concurrency, each.throughput) for each in result.preprocessor),
    )
    yield ""
    yield from markdown_table(
        ("mark", "batch", "reached"),
        ((name, batch or "", value) for name, batch, value in result.marks()),
    )
    yield ""
    per_product, per_image = result.products
    speed = result.product.throughput.median * per_product / GIGA
    yield (
        f"An image costs {three_digits(per_image / GIGA)} GMAC; the machine's matrix product in "
        f"{result.product.precision} does {three_digits(speed)} GMAC/s."
    )
    if result.memory:
        yield f"The server's memory at its peak: {three_digits(result.memory / GIGA)} GB."


def _introduction(result: Result) -> Iterator[str]:
    machine, model = result.machine, result.model
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{model['variant']}, on {result.where()}"
    yield f"({versions})"
    if machine["gpu_unused"]:
        yield f"All on the CPU, although a GPU is here: {machine['gpu_unused']}"
    if model["note"]:
        yield f"Model: {model['note']}"
    yield f"Served answers: {result.agreement}"
    yield "Each figure is the median of its rounds, with the lowest and the highest; p99 is that of"
    yield "all n requests in all rounds together, of fewer than 100 the slowest."


def draw(result: Result, path: Path) -> None:
    """Write throughput and latency against concurrency as a PNG, whole or not at all."""
    figure, (throughput, latency) = pyplot.subplots(1, 2, figsize=(12, 5))
    served = [each for each in result.candidates if each.name == GRPC]
    colours = (f"C{number}" for number in range(100))  # one per curve, whatever it is of
    for batch in result.batches:
        points = sorted(
            (each for each in served if each.batch == batch), key=lambda each: each.concurrency
        )
        clients = [each.concurrency for each in points]
        colour = next(colours)
        rates = [each.throughput for each in points]
        _plot(throughput, clients, rates, colour, f"gRPC, batch of {batch}")
        medians = [each.latency(0.5) for each in points]
        _plot(latency, clients, medians, colour, f"p50, batch of {batch}")
        slowest = [each.latency_of_all(0.99) for each in points]
        label = f"p99 of all rounds, batch of {batch}"
        latency.plot(clients, slowest, "o:", color=next(colours), label=label)
    for each in result.candidates:
        if each.name != GRPC:
            label = f"{each.name}, {each.precision}, batch of {each.batch}"
            style = "--" if each.name == ENGINE else ":"
            throughput.axhline(
                each.throughput.median, label=label, color=next(colours), linestyle=style
            )
    throughput.set(xlabel="clients at once", ylabel="images/s")
    throughput.set_ylim(bottom=0)
    latency.set(xlabel="clients at once", ylabel="latency, ms (logarithmic)", yscale="log")
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_minor_formatter(NullFormatter())
    for axes in (throughput, latency):
        axes.set_xticks(sorted({each.concurrency for each in served}))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize="small")
    title = f"{result.model['variant']}, on {result.where()}"
    if result.memory is not None:  # the server was started here
        title += "\nclients and server share these cores"
    figure.suptitle(title)

    def save(unfinished: Path) -> None:
        figure.savefig(unfinished, format="png", dpi=100, bbox_inches="tight")

    write_atomically(path, save)
    pyplot.close(figure)


def _plot(
    axes: Axes, clients: Sequence[int], measured: Sequence[Measurement], colour: str, label: str
) -> None:
    """Draw medians, with bars from the lowest to the highest."""
    below = [each.median - each.lowest for each in measured]
    above = [each.highest - each.median for each in measured]
    medians = [each.median for each in measured]
    axes.errorbar(
        clients, medians, yerr=(below, above), color=colour, label=label, marker="o", capsize=3
    )
