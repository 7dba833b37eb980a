"""The logic of the server's Python models, for the build to run too: it has one home.

Each model's version folder becomes a package, as Triton's Python backend makes it one. Nothing is
added to `sys.path`, where a module called `labels` would shadow a user's own.
"""

import importlib
import sys
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ram_triton.repository.layout import (
    BACKENDS,
    DEFAULT_REPOSITORY,
    OPENVINO_BACKEND,
    OPTIONAL_MODELS,
)

__all__ = [
    "DRAFT_MARGIN",
    "MOST_MAPS",
    "TURNS",
    "ImageError",
    "ImageLimits",
    "KnownLabels",
    "LabelLimits",
    "LabelText",
    "Memory",
    "RequestError",
    "TagOptions",
    "Vocabulary",
    "fold",
    "image_limits",
    "label_limits",
    "open_image",
    "openvino_on_cpu",
    "pad",
    "postprocess",
    "preprocess",
    "read_orientation",
    "read_parameter",
    "scale_transparent_colour",
    "select",
    "sigmoid",
    "spell",
    "squash",
    "unwrap",
]


def _load(folder: Path, name: str) -> ModuleType:
    """Import a module of a model's version folder, or of a backend's."""
    package = f"{__name__}.{folder.parent.name}"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = module_from_spec(spec)
        # Models share these files by links: one module each, so that their classes are the same.
        for shared in _SHARED:
            sys.modules[f"{package}.{shared.__name__.rpartition('.')[2]}"] = shared
    return importlib.import_module(f"{package}.{name}")


_SHARED: list[ModuleType] = []
request = _load(DEFAULT_REPOSITORY / "ram_postprocess" / "1", "request")
postprocessing = _load(DEFAULT_REPOSITORY / "ram_postprocess" / "1", "postprocess")
_SHARED += [request, postprocessing]
encoded_image = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "encoded_image")
jpegs = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "jpeg")
structure = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "structure")
tiffs = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "tiff")
preprocessing = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "preprocess")
resizing = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "resize")
backlog = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "backlog")
door = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "door")
decoder = _load(DEFAULT_REPOSITORY / "ram_preprocess" / "1", "decoder")
open_postprocessing = _load(DEFAULT_REPOSITORY / "ram_open_postprocess" / "1", "open_tags")
labels = _load(DEFAULT_REPOSITORY / "ram_open_labels" / "1", "labels")
label_text = _load(OPTIONAL_MODELS / "ram_open_text" / "1", "label_text")

if TYPE_CHECKING:  # mypy finds these files by its mypy_path in pyproject.toml
    from encoded_image import ImageError, ImageLimits, unwrap
    from label_text import LabelText, Memory, pad
    from labels import KnownLabels, LabelLimits
    from postprocess import MOST_MAPS, TagOptions, Vocabulary, postprocess, select, sigmoid
    from preprocess import (
        DRAFT_MARGIN,
        TURNS,
        open_image,
        read_orientation,
        scale_transparent_colour,
        squash,
    )
    from request import RequestError, fold, read_parameter, spell
else:
    for _module in (encoded_image, label_text, labels, postprocessing, preprocessing, request):
        globals().update({name: vars(_module)[name] for name in __all__ if name in vars(_module)})


def preprocess(
    data: bytes, image_size: int, limits: "ImageLimits | None" = None
) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """Make the encoder's pixels of an image, as the server does.

    Args:
        data: an encoded image, its base64 text, or a `data:` URL.
        image_size: side of the square, in pixels.
        limits: the largest image to accept; by default the server's own.

    Returns:
        (image_size, image_size, 3) uint8.

    Raises:
        ImageError: it is empty, too large, truncated, or not an image.
    """
    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = preprocessing.preprocess(
        data, image_size, limits or image_limits()
    )
    return pixels


@cache
def openvino_on_cpu() -> ModuleType:
    """Import the compiler of the OpenVINO backend: not before it is needed, it imports OpenVINO."""
    return _load(BACKENDS / OPENVINO_BACKEND, "on_cpu")


@cache
def image_limits() -> "ImageLimits":
    """Return the limits in the project's own ram_preprocess/config.pbtxt."""
    return ImageLimits.read(_config("ram_preprocess"))


@cache
def label_limits() -> "LabelLimits":
    """Return the limits in the project's own ram_open_labels/config.pbtxt."""
    return LabelLimits.read(_config("ram_open_labels"))


def _config(model: str) -> str:
    """Return a model's config.pbtxt as JSON, as Triton hands it to the model."""
    from google.protobuf.json_format import MessageToJson

    from ram_triton.repository.configs import EngineConfig

    message = EngineConfig.read(DEFAULT_REPOSITORY / model / "config.pbtxt").model
    return str(MessageToJson(message, preserving_proto_field_name=True))
