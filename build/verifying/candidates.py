"""What the version folders hold, each pair of files as a function of pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ram.agreement import FLOAT32, Limits
from ram.cuda_device import first_device
from ram.engine import load_tensorrt
from ram.int8 import LIMITS as INT8_LIMITS
from ram.layout import ENCODER, HEAD, INT8_ENCODER, PLAN, TYPED_ENCODER
from ram.loaded_engine import LoadedEngine, engine_tagger, require_cuda
from ram.rounding import RoundedTagger
from ram.taggers import Tagger, onnx_tagger

FIXED_LIMITS = {ENCODER.name: FLOAT32, INT8_ENCODER.name: INT8_LIMITS}
FIGURES = ("logit_difference", "flip_distance", "tag_f1")


class VerifyError(ValueError):
    """There is nothing to compare, or not what it says; the message is one line."""


@dataclass(frozen=True)
class Candidate:
    """A pair of files that should compute what PyTorch does.

    Attributes:
        name: what both files are called.
        limits: what they may differ by.
        load: returns what runs them, and its name.
    """

    name: str
    limits: Limits
    load: Callable[[], tuple[Tagger, str]]


def typed_limits(manifest: dict) -> Limits | None:
    """Return the limits of the half-precision graphs, None where none were built."""
    typed = manifest.get("typed")
    return typed and Limits(**{name: typed["limits"][name] for name in FIGURES})


def find_candidates(root: Path, manifest: dict, formats: Sequence[str] = ()) -> list[Candidate]:
    """List the pairs of files that are there.

    Args:
        root: the model repository.
        manifest: what the build wrote of it.
        formats: those of `FORMATS` that must be there, and the only ones; all that are, if empty.

    Raises:
        VerifyError: there is none, only half of a pair, or no limits for it.
    """
    found = []
    for name, run in FORMATS.items():
        paths = [root / folder.with_name(name) for folder in (ENCODER, HEAD)]
        there = [path for path in paths if path.is_file()]
        if name not in formats and (formats or not there):
            continue
        if missing := [path for path in paths if path not in there]:
            raise VerifyError(f"{missing[0]} is missing{_remedy(name)}")
        limits = FIXED_LIMITS.get(name) or typed_limits(manifest)
        if limits is None:
            raise VerifyError(f"the manifest has no limits for {name}: run 'make model' again")
        found.append(Candidate(name, limits, lambda run=run, paths=paths: run(manifest, *paths)))
    if not found:
        raise VerifyError(f"{root}: holds no graphs: run 'make model' first")
    return found


def _remedy(name: str) -> str:
    return ": run 'make plans' where the GPU is" if name == PLAN else ": run 'make model' again"


def _run_float32(manifest: dict, encoder: Path, head: Path) -> tuple[Tagger, str]:
    return onnx_tagger(encoder, head), "OpenVINO, float32"


def _run_rounded(manifest: dict, encoder: Path, head: Path) -> tuple[Tagger, str]:
    precision = manifest["typed"]["precision"]
    return RoundedTagger(encoder, head), f"ONNX Runtime, rounded to {precision}"


def _run_int8(manifest: dict, encoder: Path, head: Path) -> tuple[Tagger, str]:
    return onnx_tagger(encoder, head), "OpenVINO, INT8, the rest float32"


def _run_plans(manifest: dict, encoder: Path, head: Path) -> tuple[Tagger, str]:
    """Load plans; raises DeviceError or EngineError where that is impossible."""
    device, trt = first_device(), load_tensorrt()
    require_cuda()
    engines = (LoadedEngine(trt, path.read_bytes(), str(path)) for path in (encoder, head))
    return engine_tagger(*engines), f"TensorRT {trt.__version__} on {device.name}"


# What may stand in a version folder, and what runs it.
FORMATS = {ENCODER.name: _run_float32, TYPED_ENCODER.name: _run_rounded,
           INT8_ENCODER.name: _run_int8, PLAN: _run_plans}  # fmt: skip
