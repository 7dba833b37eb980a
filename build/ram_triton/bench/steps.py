"""What each step of the ensemble takes, by Triton's own statistics."""

from collections.abc import Mapping
from dataclasses import dataclass

from tritonclient.grpc import InferenceServerClient

from ram_triton.repository.layout import MODELS, graph_steps

ENSEMBLE = "ram"
STEPS, ENGINES = MODELS[ENSEMBLE].steps, graph_steps(ENSEMBLE)
# Triton's names of what a request spends its time in.
PARTS = {
    "queue": "queue",
    "compute_input": "input",
    "compute_infer": "infer",
    "compute_output": "output",
}
NANOSECONDS = 1e6  # in a millisecond


@dataclass(frozen=True)
class Statistics:
    """Triton's running totals; differences are those in between.

    Attributes:
        counts: successful requests, by model.
        totals: nanoseconds of all of them, by model and part; `total` is all of a request.
    """

    counts: Mapping[str, int]
    totals: Mapping[tuple[str, str], int]

    @classmethod
    def read(cls, client: InferenceServerClient) -> "Statistics":
        """Ask a server."""
        counts, totals = {}, {}
        for model in (ENSEMBLE, *STEPS):
            (found,) = client.get_inference_statistics(model).model_stats
            figures = found.inference_stats
            counts[model] = figures.success.count
            totals[model, "total"] = figures.success.ns
            for name, part in PARTS.items():
                totals[model, part] = getattr(figures, name).ns
        return cls(counts, totals)

    def __sub__(self, before: "Statistics") -> "Statistics":
        return Statistics(
            {model: self.counts[model] - before.counts[model] for model in self.counts},
            {key: self.totals[key] - before.totals[key] for key in self.totals},
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            {model: self.counts[model] + other.counts[model] for model in self.counts},
            {key: self.totals[key] + other.totals[key] for key in self.totals},
        )

    def milliseconds(self, model: str, part: str) -> float:
        """Return what a request spends there, the mean."""
        return self.totals[model, part] / max(self.counts[model], 1) / NANOSECONDS

    def tritons_share(self) -> float:
        """Return what a request spends outside of the engines, as a share of what it does there.

        Holds for requests that come one after the other: where they are joined, each counts the
        whole batch's time as its own.
        """
        engines = sum(self.milliseconds(model, "infer") for model in ENGINES)
        return self.milliseconds(ENSEMBLE, "total") / engines - 1

    def as_rows(self) -> list[dict[str, object]]:
        """Return a row for each step: milliseconds of a request in each part."""
        return [
            {"step": model}
            | {f"{part}_ms": self.milliseconds(model, part) for part in (*PARTS.values(), "total")}
            for model in (*STEPS, ENSEMBLE)
        ]
