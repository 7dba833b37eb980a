"""What a repository contains to compare with PyTorch: a manifest, a vocabulary, pairs of graphs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ram_triton.engines.onnxruntime import RoundedGraph
from ram_triton.engines.openvino import CompiledGraph
from ram_triton.engines.tagger import Array, chain
from ram_triton.engines.tensorrt import load_tensorrt
from ram_triton.engines.tensorrt_runner import LoadedEngine, chain_on_gpu, require_cuda
from ram_triton.errors import ParityError
from ram_triton.gpus import first_gpu
from ram_triton.model.weight_files import digest
from ram_triton.parity.limits import FLOAT32_LIMITS, INT8_LIMITS, Limits
from ram_triton.repository.layout import (
    ENCODER,
    FLOAT32_GRAPH,
    GRAPH_FILES,
    HALF_GRAPH,
    HEAD,
    INT8_GRAPH,
    LABELS,
    MODELS,
    PLAN,
    VOCABULARY,
    Model,
)
from ram_triton.repository.repository import Repository
from ram_triton.server_code import Vocabulary

REMEDIES = {
    INT8_GRAPH: "run 'make model' again, with INT8=DIR",
    PLAN: "run 'make plans' where the GPU is",
}
FIXED_LIMITS = {FLOAT32_GRAPH: FLOAT32_LIMITS, INT8_GRAPH: INT8_LIMITS}
# What takes the encoder's embeddings beside the head, where a repository has it.
OTHERS = tuple(
    model
    for model in MODELS.values()
    if model.image_input == "image_embeds" and model.name != HEAD.parts[0]
)


@dataclass(frozen=True)
class GraphPair:
    """An encoder and a head, or heat maps, in one format, which should compute what PyTorch does.

    Attributes:
        encoder: the encoder's file, which is called one of `GRAPH_FILES`.
        head: the head's or the maps', which is called the same.
        limits: what their logits or maps may differ by.
        precision: the half precision that the manifest specifies.
        labels: a folder of label embeddings, if they are an input.
    """

    encoder: Path
    head: Path
    limits: Limits
    precision: str
    labels: Path | None = None

    @property
    def model(self) -> Model:
        """The second's model."""
        return MODELS[self.head.parts[-3]]

    @property
    def name(self) -> str:
        """What both files are called, and the second's model if that is not `ram_head`."""
        other = f" of {self.model.name}" if self.model in OTHERS else ""
        return self.encoder.name + other

    def load(self) -> tuple[Callable[..., Array], str]:
        """Return the pair as a function, as `chain` does, and the name of the engine that runs it.

        Raises:
            MachineError, EngineError: they are plans, and no TensorRT or GPU here can run them.
        """
        inputs = {}
        if self.labels:  # as the server gives them to the head for the vocabulary's names
            embeddings = np.load(self.labels / "label_embeds.npy")
            inputs["label_embeds"] = embeddings.reshape(len(embeddings), -1)
        if self.encoder.name == PLAN:
            gpu, trt = first_gpu(), load_tensorrt()
            require_cuda()
            engines = (
                LoadedEngine(trt, path.read_bytes(), str(path))
                for path in (self.encoder, self.head)
            )
            return chain_on_gpu(*engines, **inputs), f"TensorRT {trt.__version__} on {gpu.name}"
        engine = {
            FLOAT32_GRAPH: "OpenVINO, float32",
            INT8_GRAPH: "OpenVINO, INT8, the rest float32",
            HALF_GRAPH: f"ONNX Runtime, rounded to {self.precision}",
        }[self.encoder.name]
        load = RoundedGraph if self.encoder.name == HALF_GRAPH else CompiledGraph
        return chain(load(self.encoder), load(self.head), **inputs), engine


def read_repository(root: Path) -> tuple[dict[str, Any], Vocabulary]:
    """Return the manifest and the vocabulary.

    Raises:
        RepositoryError: no model was built into it, or the manifest cannot be read.
        ParityError: the manifest or the vocabulary is damaged.
    """
    manifest = Repository(root).require_manifest()
    try:
        manifest["checkpoint"]["sha256"]  # what all else rests on
        return manifest, Vocabulary.load(root / VOCABULARY)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ParityError(f"{root}: manifest or vocabulary is damaged ({reason})") from error


def require_checkpoint(checkpoint: Path, manifest: dict[str, Any]) -> None:
    """Check that this is the file which the repository was built from.

    Raises:
        ParityError: it is another one, or cannot be read.
    """
    try:
        found = digest(checkpoint)
    except OSError as error:
        raise ParityError(f"{checkpoint}: cannot be read ({error.strerror})") from error
    built = manifest["checkpoint"]
    if found != built["sha256"]:
        raise ParityError(
            f"{checkpoint}: the repository was built from another checkpoint, '{built['name']}' "
            f"with SHA-256 {built['sha256'][:12]}…, this one has {found[:12]}…"
        )


def half_precision_limits(manifest: dict[str, Any]) -> Limits | None:
    """Return the limits of the half-precision graphs, None if none were built.

    Raises:
        ParityError: the manifest has no such limits.
    """
    half = manifest.get("half")
    try:
        if not half:
            return None
        limits = {"map_difference": 0.0, **half["limits"]}
        return Limits(**{field.name: float(limits[field.name]) for field in fields(Limits)})
    except (KeyError, TypeError, ValueError) as error:
        raise ParityError("the manifest's 'half' is damaged: run 'make model' again") from error


def find_graph_pairs(
    root: Path, manifest: dict[str, Any], formats: Sequence[str] = ()
) -> list[GraphPair]:
    """List the pairs of files that are there: the encoder with each head and with heat maps.

    Args:
        root: the model repository.
        manifest: what the build wrote of it.
        formats: those of `GRAPH_FILES` that must be there, and the only ones that are listed; if
            empty, all that are there.

    Raises:
        ParityError: there is no pair, only half of one, or no limits for one.
    """
    found = []
    for name in GRAPH_FILES:
        others = [model for model in OTHERS if name in (*model.graphs, PLAN)]
        others = [model for model in others if (root / model.name).is_dir()]
        files = (ENCODER.with_name(name), HEAD.with_name(name), *(m.file(name) for m in others))
        paths = [root / file for file in files]
        missing = [path for path in paths if not path.is_file()]
        if name not in formats and (formats or len(missing) == len(paths)):
            continue
        if missing:
            remedy = REMEDIES.get(name, "run 'make model' again")
            raise ParityError(f"{missing[0]} is missing: {remedy}")
        limits = FIXED_LIMITS.get(name) or half_precision_limits(manifest)
        if limits is None:
            raise ParityError(f"the manifest has no limits for {name}: run 'make model' again")
        precision = str((manifest.get("half") or {}).get("precision"))
        encoder, head, *seconds = paths
        found.append(GraphPair(encoder, head, limits, precision))
        for path, model in zip(seconds, others, strict=True):
            labels = root / LABELS if model.takes_labels else None
            found.append(GraphPair(encoder, path, limits, precision, labels))
    if not found:
        raise ParityError(f"{root}: contains no graphs: run 'make model' first")
    return found
