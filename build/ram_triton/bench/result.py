"""All that a benchmark has measured, and what follows from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ram_triton.bench.contest import Competitor
from ram_triton.bench.decoding import Decoding
from ram_triton.bench.figure import Figure
from ram_triton.bench.postprocessing import BATCH
from ram_triton.bench.ways import ENGINE, GRPC, PYTORCH, Served
from ram_triton.parity.compare import Agreement


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        machine: as `describe_machine` gives it.
        model: what was served: variant, checkpoint, note.
        settings: how it was measured.
        agreement: how far the server's logits agree with the reference's.
        competitors: PyTorch, engine, and Triton at each batch size and concurrency.
        product: the machine's matrix product.
        products: multiplications of that product, and those of one image.
        preprocessor: the served one, for one client and for several.
        decodings: of single pictures.
        postprocessing: milliseconds of a full batch.
        memory: the server's, in bytes at its peak; None where it was started elsewhere.
    """

    machine: Mapping[str, object]
    model: Mapping[str, object]
    settings: Mapping[str, object]
    agreement: Agreement
    competitors: Sequence[Competitor]
    product: Competitor
    products: tuple[int, int]
    preprocessor: Sequence[Competitor]
    decodings: Sequence[Decoding]
    postprocessing: Figure
    memory: int | None

    def find(self, way: str, batch: int, concurrency: int = 1) -> Competitor | None:
        """Return one of the competitors, None where it did not take part."""
        for each in self.competitors:
            if (each.way, each.batch, each.concurrency) == (way, batch, concurrency):
                return each
        return None

    def steps(self) -> list[dict[str, object]]:
        """Return what Triton's statistics say of each step, at each batch size and concurrency."""
        return [
            {"batch": each.batch, "concurrency": each.concurrency} | row
            for each in self.competitors
            if isinstance(each, Served)
            for row in each.statistics.as_rows()
        ]

    def marks(self) -> dict[str, Figure]:
        """Return the ratios that tell how good it is, round by round, by what they say."""
        marks = {}
        per_product, per_image = self.products
        for batch in sorted({each.batch for each in self.competitors}):
            pytorch, engine, served = (self.find(way, batch) for way in (PYTORCH, ENGINE, GRPC))
            if pytorch and served:
                marks[f"gRPC, times PyTorch's throughput, batch of {batch}"] = _ratio(
                    served.throughput, pytorch.throughput
                )
            if engine:
                marks[f"engine, share of the matrix product, batch of {batch}"] = _ratio(
                    engine.throughput, self.product.throughput, per_image / per_product
                )
            if isinstance(served, Served):
                marks[f"Triton's own time, share of the engine's, batch of {batch}"] = Figure(
                    tuple(turn.tritons_share() for turn in served.turns)
                )
        for each in self.decodings:
            if each.difference:  # without a reduced scale both ways are the same
                marks[f"{each.picture}: times faster than at full size"] = each.times_faster
        one, *several = self.preprocessor
        for each in several:
            name = f"preprocessor on {self.machine['cores']} cores, {each.concurrency} clients"
            marks[f"{name}, times one client's throughput"] = _ratio(
                each.throughput, one.throughput
            )
        marks[f"postprocessor, milliseconds for {BATCH} images"] = self.postprocessing
        return marks

    def as_dict(self) -> dict[str, object]:
        """Return everything by name, for JSON."""
        return {
            "machine": self.machine,
            "model": self.model,
            "settings": self.settings,
            "agreement": self.agreement.as_dict(),
            "throughput": [each.as_dict() for each in self.competitors],
            "steps": self.steps(),
            "matrix_product": self.product.as_dict()
            | {"products": self.products[0], "products_of_an_image": self.products[1]},
            "preprocessor": {
                "served": [each.as_dict() for each in self.preprocessor],
                "one_core": [each.as_dict() for each in self.decodings],
            },
            "postprocessor_ms": self.postprocessing.as_dict(),
            "server_peak_bytes": self.memory,
            "marks": {name: figure.as_dict() for name, figure in self.marks().items()},
        }

    def write(self, path: Path) -> None:
        """Write the JSON, at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")
        unfinished.replace(path)


def _ratio(one: Figure, other: Figure, factor: float = 1.0) -> Figure:
    """Divide round by round: what slows a round slows both."""
    pairs = zip(one.values, other.values, strict=True)
    return Figure(tuple(factor * a / b for a, b in pairs))
