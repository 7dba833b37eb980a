"""The time that each step of the ensemble takes, by Triton's own statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ram_triton.repository.layout import MODELS, graph_steps

ENSEMBLE = "ram"
STEPS = tuple(step for step in MODELS[ENSEMBLE].steps if not MODELS[step].makes_maps)
ENGINES = graph_steps(ENSEMBLE)
# Triton's names of the parts of a request's time.
PARTS = {
    "queue": "queue",
    "compute_input": "input",
    "compute_infer": "infer",
    "compute_output": "output",
}
TOTAL = "total"
COLUMNS = (*PARTS.values(), TOTAL)
NANOSECONDS = 1e6  # per millisecond


@dataclass(frozen=True)
class Statistics:
    """Triton's running totals; their difference is what happened in between.

    Attributes:
        counts: successful requests, by model.
        totals: nanoseconds of all of them, by model and part; `TOTAL` is a request's whole time.
    """

    counts: Mapping[str, int]
    totals: Mapping[tuple[str, str], int]

    @classmethod
    def read(cls, statistics: Callable[[str], Any]) -> "Statistics":
        """Read the totals of the ensemble and its steps.

        Args:
            statistics: returns Triton's `InferStatistics` of a model.
        """
        counts: dict[str, int] = {}
        totals: dict[tuple[str, str], int] = {}
        for model in (ENSEMBLE, *STEPS):
            found = statistics(model)
            counts[model] = found.success.count
            totals[model, TOTAL] = found.success.ns
            for name, part in PARTS.items():
                totals[model, part] = getattr(found, name).ns
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
        """Return a request's mean time in a part of a model."""
        return self.totals[model, part] / max(self.counts[model], 1) / NANOSECONDS

    def engine_milliseconds(self) -> float:
        """Return a request's mean time in the engines."""
        return sum(self.milliseconds(model, "infer") for model in ENGINES)

    def tritons_share(self) -> float:
        """Return a request's time outside of the engines, as a share of its time inside them.

        Only for requests that come one after the other: if requests are joined, each counts the
        whole batch's time as its own.
        """
        return self.milliseconds(ENSEMBLE, TOTAL) / self.engine_milliseconds() - 1

    def as_rows(self) -> list[dict[str, object]]:
        """Return one row per step: a request's mean milliseconds in each part."""
        return [
            {"step": model} | {f"{part}_ms": self.milliseconds(model, part) for part in COLUMNS}
            for model in (*STEPS, ENSEMBLE)
        ]
