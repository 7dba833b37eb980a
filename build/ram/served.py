"""The files that the server runs, for the build to run too: one home for their logic."""

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "model_repository"
for _model in ("ram_preprocess", "ram_postprocess"):
    sys.path.append(str(SOURCE / _model / "1"))

from postprocess import Options, Vocabulary, postprocess, select, sigmoid  # noqa: E402
from preprocess import (  # noqa: E402
    DRAFT_MARGIN,
    ImageError,
    Limits,
    open_image,
    preprocess,
    squash,
)

__all__ = ["DRAFT_MARGIN", "SOURCE", "ImageError", "Limits", "Options", "Vocabulary", "open_image",
           "postprocess", "preprocess", "select", "sigmoid", "squash"]  # fmt: skip
