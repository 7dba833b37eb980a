"""The files that the server runs, for the build to run too: one home for their logic."""

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "model_repository"
for _model in ("ram_preprocess", "ram_postprocess", "ram_labels"):
    sys.path.append(str(SOURCE / _model / "1"))

from labels import KnownLabels, RequestError, fold  # noqa: E402
from postprocess import Options, Vocabulary, postprocess, select, sigmoid  # noqa: E402
from preprocess import (  # noqa: E402
    DRAFT_MARGIN,
    TURNS,
    ImageError,
    Limits,
    open_image,
    preprocess,
    read_orientation,
    scale_transparent_colour,
    squash,
)

__all__ = [
    "DRAFT_MARGIN", "SOURCE", "TURNS", "ImageError", "KnownLabels", "Limits", "Options",
    "RequestError", "Vocabulary", "fold", "open_image", "postprocess", "preprocess",
    "read_orientation", "scale_transparent_colour", "select", "sigmoid", "squash",
]  # fmt: skip
