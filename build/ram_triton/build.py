"""Checkpoint to model repository: load, export, check, install."""

import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ram_triton.engines.pytorch import Tagger, onnx_tagger, run, torch_tagger
from ram_triton.files import sha256
from ram_triton.graphs.export import export_model
from ram_triton.graphs.half_precision import halve
from ram_triton.graphs.int8 import LIMITS as INT8_LIMITS
from ram_triton.graphs.int8 import MOST_PICTURES, quantise_pair, require_nncf
from ram_triton.graphs.open_head import add_open_head
from ram_triton.model.checkpoint import load_model
from ram_triton.parity.compare import FLOAT32, Agreement, compare
from ram_triton.parity.limits import HalfPrecision, measure_pair
from ram_triton.parity.pictures import noise_batches, picture_batches, picture_files
from ram_triton.repository import layout as places
from ram_triton.repository.layout import NONE, PRECISIONS
from ram_triton.repository.repository import Repository
from ram_triton.server_code import Vocabulary
from ram_triton.vocabulary.tag_lists import DEFAULT_THRESHOLD, read_vocabulary

TOOLS = (
    "ram-triton",
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        checkpoint: a published-format RAM checkpoint.
        vocabulary: folder with the tag lists.
        repository: the model repository to write into.
        images: folder of pictures for the check.
        backbone: `swin_b` or `swin_l` if the weights must be that, else None.
        image_size: likewise, in pixels.
        default_threshold: for vocabularies without a list of thresholds.
        precision: of the graphs for TensorRT, one of `PRECISIONS`; with `none` there are none.
        int8: folder of pictures that calibrate INT8 graphs for the CPU; without it there are none.
        note: a line about the model, kept in the manifest.
    """

    checkpoint: Path
    vocabulary: Path
    repository: Path
    images: Path
    backbone: str | None = None
    image_size: int | None = None
    default_threshold: float = DEFAULT_THRESHOLD
    precision: str = PRECISIONS[0]
    int8: Path | None = None
    note: str | None = None


def build(request: BuildRequest, say: Callable[[str], None] = print) -> Agreement:
    """Write a model into a repository, which stays as it was unless all goes well.

    Raises:
        CheckpointError, VocabularyError, RepositoryError: the input cannot be used.
        PictureError: the pictures for the check cannot be used.
        ParityError: the exported graphs do not compute what the checkpoint does.
        GraphError: the model has no place in half precision.
        GraphError: NNCF is missing, where INT8 is asked for.
    """
    if request.int8:  # before anything that takes long
        require_nncf()
        picture_files(request.int8)
    model = load_model(request.checkpoint, request.backbone, request.image_size)
    variant = model.variant
    say(f"{request.checkpoint}: {variant}")
    vocabulary = read_vocabulary(request.vocabulary, variant.num_tags, request.default_threshold)
    repository = Repository(request.repository)
    with repository.staging() as staging:
        encoder, head = staging / places.ENCODER, staging / places.HEAD
        say("exporting encoder and head to ONNX")
        export_model(model, encoder, head)
        say("checking the graphs against PyTorch")
        pictures = list(picture_batches(request.images, variant.image_size))
        batches = [*pictures, *noise_batches(variant.image_size)]
        expected = run(torch_tagger(model), batches)
        agreement = compare(expected, run(onnx_tagger(encoder, head), batches), vocabulary)
        say(str(agreement))
        agreement.require(FLOAT32)
        half = None
        if request.precision != NONE:
            say(f"making and checking the {request.precision} graphs for TensorRT")
            half = _halve_pair(staging, request.precision, pictures, expected, vocabulary)
            say(str(half))
            half.require()
        images = sum(len(pixels) for pixels in pictures)  # `expected` begins with theirs
        int8 = None
        if request.int8:
            say(f"making and checking INT8 graphs, calibrated on the pictures in {request.int8}")
            tagger = _quantise(staging, request.int8, variant.image_size)
            int8 = compare(expected[:images], run(tagger, pictures), vocabulary)
            say(f"INT8: {int8}")
            int8.require(INT8_LIMITS, "the INT8 graphs")
        open_head = add_open_head(
            model, staging, pictures, expected[:images], vocabulary, request.precision
        )
        vocabulary.save(_place(staging / places.VOCABULARY))
        preprocessing = _place(staging / places.PREPROCESSING)
        preprocessing.write_text(json.dumps({"image_size": variant.image_size}) + "\n")
        repository.install(
            staging,
            {
                "checkpoint": {
                    "name": request.checkpoint.name,
                    "sha256": sha256(request.checkpoint),
                },
                "note": request.note,
                "variant": variant.as_dict(),
                "parity": agreement.as_dict(),
                "half": half.as_dict() if half else None,
                "int8": int8 and {"limits": INT8_LIMITS.as_dict(), "measured": int8.as_dict()},
                "open_head": open_head.as_dict(),
                "tools": {
                    "python": platform.python_version(),
                    **{tool: importlib.metadata.version(tool) for tool in TOOLS},
                },
            },
        )
    say(f"{request.repository}: ready to serve")
    return agreement


def _halve_pair(
    staging: Path,
    precision: str,
    pictures: Sequence[np.ndarray],
    expected: np.ndarray,
    vocabulary: Vocabulary,
) -> HalfPrecision:
    """Write the half-precision pair and measure it; `expected` begins with the pictures' logits."""
    half = staging / places.HALF_ENCODER, staging / places.HALF_HEAD
    for source, target in zip((places.ENCODER, places.HEAD), half, strict=True):
        halve(staging / source, target, precision)
    images = sum(len(pixels) for pixels in pictures)
    return measure_pair(half, precision, pictures, expected[:images], vocabulary)


def _quantise(staging: Path, folder: Path, image_size: int) -> Tagger:
    """Write the INT8 pair, calibrated on a folder's pictures; returns it, the rest in float32."""
    int8 = staging / places.INT8_ENCODER, staging / places.INT8_HEAD
    pictures = list(islice(picture_batches(folder, image_size, (1,)), MOST_PICTURES))
    quantise_pair((staging / places.ENCODER, staging / places.HEAD), int8, pictures)
    return onnx_tagger(*int8)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
