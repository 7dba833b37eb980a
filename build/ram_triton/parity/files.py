"""What the version folders hold, each encoder and head as a function of pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ram_triton.engines.cuda_device import first_device
from ram_triton.engines.loaded_engine import LoadedEngine, engine_tagger, require_cuda
from ram_triton.engines.onnxruntime import RoundedTagger
from ram_triton.engines.pytorch import Tagger, onnx_tagger
from ram_triton.engines.tensorrt import load_tensorrt
from ram_triton.errors import ParityError
from ram_triton.graphs.int8 import LIMITS as INT8_LIMITS
from ram_triton.parity.compare import FLOAT32, Limits
from ram_triton.repository.layout import (
    ENCODER,
    HEAD,
    INT8_ENCODER,
    LABELS,
    OPEN_HEAD,
    PLAN,
    TYPED_ENCODER,
)

FIXED_LIMITS = {ENCODER.name: FLOAT32, INT8_ENCODER.name: INT8_LIMITS}
FIGURES = ("logit_difference", "flip_distance", "tag_f1")


@dataclass(frozen=True)
class Candidate:
    """A pair of files that should compute what PyTorch does.

    Attributes:
        name: what both files are called, and of which head where it is not that of `ram`.
        limits: what they may differ by.
        load: returns what runs them, and its name.
    """

    name: str
    limits: Limits
    load: Callable[[], tuple[Tagger, str]]


def typed_limits(manifest: dict) -> Limits | None:
    """Return the limits of the half-precision graphs, None where none were built.

    Raises:
        ParityError: the manifest has no such limits.
    """
    typed = manifest.get("typed")
    try:
        return typed and Limits(**{name: float(typed["limits"][name]) for name in FIGURES})
    except (KeyError, TypeError, ValueError) as error:
        raise ParityError("the manifest's 'typed' is damaged: run 'make model' again") from error


def find_candidates(root: Path, manifest: dict, formats: Sequence[str] = ()) -> list[Candidate]:
    """List the pairs of files that are there: the encoder with each head.

    Args:
        root: the model repository.
        manifest: what the build wrote of it.
        formats: those of `FORMATS` that must be there, and the only ones; all that are, if empty.

    Raises:
        ParityError: there is none, only half of a pair, or no limits for it.
    """
    found = []
    for name, run in FORMATS.items():
        folders = [ENCODER, HEAD]
        if name != INT8_ENCODER.name and (root / OPEN_HEAD.parts[0]).is_dir():
            folders.append(OPEN_HEAD)
        paths = [root / folder.with_name(name) for folder in folders]
        there = [path for path in paths if path.is_file()]
        if name not in formats and (formats or not there):
            continue
        if missing := [path for path in paths if path not in there]:
            raise ParityError(f"{missing[0]} is missing{_remedy(name)}")
        limits = FIXED_LIMITS.get(name) or typed_limits(manifest)
        if limits is None:
            raise ParityError(f"the manifest has no limits for {name}: run 'make model' again")
        encoder, head, *open_heads = paths
        found.append(Candidate(name, limits, partial(run, manifest, encoder, head)))
        for path in open_heads:
            load = partial(_run_open, run, manifest, encoder, path, root / LABELS)
            found.append(Candidate(f"{name} of {OPEN_HEAD.parts[0]}", limits, load))
    if not found:
        raise ParityError(f"{root}: holds no graphs: run 'make model' first")
    return found


def _remedy(name: str) -> str:
    if name == INT8_ENCODER.name:
        return ": run 'make model' again, with INT8=DIR"
    return ": run 'make plans' where the GPU is" if name == PLAN else ": run 'make model' again"


def _run_open(
    run: Callable, manifest: dict, encoder: Path, head: Path, labels: Path
) -> tuple[Tagger, str]:
    """Give the head the labels that the server gives it for the vocabulary's names."""
    embeddings = np.load(labels / "label_embeds.npy")
    return run(manifest, encoder, head, label_embeds=embeddings.reshape(len(embeddings), -1))


def _run_float32(manifest: dict, *paths: Path, **given: np.ndarray) -> tuple[Tagger, str]:
    return onnx_tagger(*paths, **given), "OpenVINO, float32"


def _run_rounded(manifest: dict, *paths: Path, **given: np.ndarray) -> tuple[Tagger, str]:
    precision = manifest["typed"]["precision"]
    return RoundedTagger(*paths, **given), f"ONNX Runtime, rounded to {precision}"


def _run_int8(manifest: dict, encoder: Path, head: Path) -> tuple[Tagger, str]:
    return onnx_tagger(encoder, head), "OpenVINO, INT8, the rest float32"


def _run_plans(manifest: dict, *paths: Path, **given: np.ndarray) -> tuple[Tagger, str]:
    """Load plans; raises MachineError or EngineError where that is impossible."""
    device, trt = first_device(), load_tensorrt()
    require_cuda()
    engines = (LoadedEngine(trt, path.read_bytes(), str(path)) for path in paths)
    return engine_tagger(*engines, **given), f"TensorRT {trt.__version__} on {device.name}"


# What may stand in a version folder, and what runs it.
FORMATS = {
    ENCODER.name: _run_float32,
    TYPED_ENCODER.name: _run_rounded,
    INT8_ENCODER.name: _run_int8,
    PLAN: _run_plans,
}
