"""What requests with labels of their own need: a head that is given labels, and known labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import torch

from ram_triton.engines.onnxruntime import RoundedGraph
from ram_triton.graphs.export import export_open_head
from ram_triton.graphs.half_precision import halve
from ram_triton.model.ram import RAM
from ram_triton.parity.compare import FLOAT32, Agreement, compare
from ram_triton.parity.limits import LIMITS, HalfPrecision
from ram_triton.repository import layout as places
from ram_triton.repository.layout import NONE
from ram_triton.server_code import Vocabulary


@dataclass(frozen=True)
class OpenHead:
    """What was measured of the graphs.

    Attributes:
        agreement: of the float32 graph with PyTorch.
        half: of the half-precision graph, or None where there is none.
    """

    agreement: Agreement
    half: HalfPrecision | None

    def as_dict(self) -> dict:
        """Return the figures by name, for the manifest."""
        half = self.half.as_dict() if self.half else None
        return {"parity": self.agreement.as_dict(), "half": half}


def add_open_head(
    model: RAM,
    staging: Path,
    pictures: Sequence[np.ndarray],
    expected: np.ndarray,
    vocabulary: Vocabulary,
    precision: str,
) -> OpenHead:
    """Write the head that is given its labels, and the model's own labels with their embeddings.

    Args:
        model: what to export.
        staging: where a repository's files go.
        pictures: pixels of some, (B, size, size, 3) uint8 each: with the model's own labels the
            graphs must give the model's logits of them.
        expected: those, (images, tags).
        vocabulary: the model's tags.
        precision: of the graph for TensorRT, one of `half_precision.PRECISIONS`.

    Raises:
        ParityError, GraphError: a graph does not compute what the model does, or the model
            has no place in half precision.
    """
    path = staging / places.OPEN_HEAD
    export_open_head(model, path)
    with torch.inference_mode():
        image_embeds = torch.cat([model.encoder(torch.from_numpy(p)) for p in pictures]).numpy()
    own = model.descriptions().detach().numpy()
    inputs = {"image_embeds": image_embeds, "label_embeds": own.reshape(len(own), -1)}
    head = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    agreement = compare(expected, head(inputs)["logits"], vocabulary)
    agreement.require(FLOAT32, "the graph with labels as an input")
    half = None
    if precision != NONE:
        halve(path, staging / places.HALF_OPEN_HEAD, precision)
        half = _measure(staging / places.HALF_OPEN_HEAD, precision, inputs, expected, vocabulary)
        half.require()
    labels = staging / places.LABELS
    labels.mkdir(parents=True, exist_ok=True)
    np.save(labels / "label_embeds.npy", own)
    vocabulary.save(labels / places.VOCABULARY.name)
    return OpenHead(agreement, half)


def _measure(
    path: Path,
    precision: str,
    inputs: dict[str, np.ndarray],
    expected: np.ndarray,
    vocabulary: Vocabulary,
) -> HalfPrecision:
    graph = RoundedGraph(path)
    agreement = compare(expected, graph(**inputs)["logits"], vocabulary)
    # The first that is no number, else the largest.
    tensor = max(graph.peaks, key=lambda name: np.nan_to_num(graph.peaks[name], nan=np.inf))
    peak = graph.peaks[tensor]
    return HalfPrecision(precision, LIMITS[precision], agreement, f"open head: {tensor}", peak)
