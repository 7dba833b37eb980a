"""The files that the server runs, for the build to run too: one home for their logic.

Each model's version folder becomes a package, as Triton's Python backend makes it one; nothing is
added to `sys.path`, where a module called `labels` would stand in the way of a user's own.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ram_triton.repository.layout import DEFAULT_REPOSITORY, OPTIONAL_MODELS


def _load(folder: Path, name: str) -> ModuleType:
    """Import a module of a model's version folder."""
    package = f"{__name__}.{folder.parent.name}"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = module_from_spec(spec)
    return importlib.import_module(f"{package}.{name}")


preprocessing = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "preprocess")
encoded_image = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "encoded_image")
postprocessing = _load(DEFAULT_REPOSITORY / "ram_postprocess" / "1", "postprocess")
# The same file by a link: one module, so that its classes are the same.
for _model in ("ram_open_labels", "ram_open_postprocess"):
    sys.modules[f"{__name__}.{_model}.postprocess"] = postprocessing
open_postprocessing = _load(DEFAULT_REPOSITORY / "ram_open_postprocess" / "1", "open_tags")
labels = _load(DEFAULT_REPOSITORY / "ram_open_labels" / "1", "labels")
label_text = _load(OPTIONAL_MODELS / "ram_open_text" / "1", "label_text")

if TYPE_CHECKING:  # mypy finds these files by its mypy_path in pyproject.toml
    from encoded_image import ImageError, Limits
    from label_text import LabelText, Memory, pad
    from labels import KnownLabels, fold
    from postprocess import Options, RequestError, Vocabulary, postprocess, select, sigmoid
    from preprocess import (
        DRAFT_MARGIN,
        TURNS,
        open_image,
        preprocess,
        read_orientation,
        scale_transparent_colour,
        squash,
    )
else:
    ImageError, Limits = encoded_image.ImageError, encoded_image.Limits
    LabelText, Memory, pad = label_text.LabelText, label_text.Memory, label_text.pad
    KnownLabels, fold = labels.KnownLabels, labels.fold
    Options, RequestError = postprocessing.Options, postprocessing.RequestError
    Vocabulary, postprocess = postprocessing.Vocabulary, postprocessing.postprocess
    select, sigmoid = postprocessing.select, postprocessing.sigmoid
    DRAFT_MARGIN, TURNS = preprocessing.DRAFT_MARGIN, preprocessing.TURNS
    open_image, preprocess = preprocessing.open_image, preprocessing.preprocess
    read_orientation, squash = preprocessing.read_orientation, preprocessing.squash
    scale_transparent_colour = preprocessing.scale_transparent_colour
