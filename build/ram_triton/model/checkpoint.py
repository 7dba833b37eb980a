"""Published RAM checkpoints: their weights' names, reading them with clear errors, writing them."""

import re
import warnings
import zipfile
from math import isfinite
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ram_triton.errors import CheckpointError, VariantError
from ram_triton.files import write_atomically
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Shapes, Variant, detect_variant

# Parts that serve training and captioning, and buffers that are rebuilt from the sizes.
UNUSED_PREFIXES = ("tag_encoder.", "text_decoder.")
UNUSED_SUFFIXES = (".relative_position_index", ".attn_mask")
OLD_HEAD_PREFIX = "vision_multi."  # what the first published checkpoints called tagging_head
SHOWN_NAMES = 3
ZIP_MAGIC = b"PK\x03\x04"

# Our prefix and the published one. A longer prefix comes before the one that it begins with.
MODULES = (
    ("encoder.swin.", "visual_encoder."),
    ("encoder.projection.", "image_proj."),
    ("head.label_projection.", "wordvec_proj."),
    ("head.classifier.", "fc."),
    ("head.layers.", "tagging_head.encoder.layer."),
)
LAYER_PARTS = (
    ("attention.output.", "crossattention.output.dense."),
    ("attention.", "crossattention.self."),
    ("attention_norm.", "crossattention.output.LayerNorm."),
    ("expand.", "intermediate.dense."),
    ("contract.", "output.dense."),
    ("norm.", "output.LayerNorm."),
)
LAYER = re.compile(r"(tagging_head\.encoder\.layer\.\d+\.)(.+)")
# timm merges patches at the start of a stage, Microsoft's Swin at the end of the one before.
DOWNSAMPLE = re.compile(r"(visual_encoder\.layers\.)(\d+)(\.downsample\..+)")


def load_model(path: Path, backbone: str | None = None, image_size: int | None = None) -> RAM:
    """Load a published checkpoint of RAM or RAM++, `.pth` or `.safetensors`.

    Args:
        path: the checkpoint.
        backbone: what the weights must be (`swin_b`, `swin_l`); if None, they may be either.
        image_size: likewise, in pixels.

    Returns:
        The model, float32, in evaluation mode; its variant shows which of the two it is. Its
        weights may be those of the file, mapped into memory.

    Raises:
        CheckpointError: the file is not a checkpoint, or not of a RAM, or not of that variant.
    """
    weights = read_weights(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        variant = detect_variant(shapes)
    except VariantError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _require_variant(path, variant, backbone, image_size)
    try:
        model = RAM.uninitialised(variant)
    except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path}: a RAM cannot have weights of these shapes ({variant})"
        ) from error
    expected = model.state_dict()
    names = {published_name(name): name for name in expected}
    found = differences(shapes, {name: expected[ours].shape for name, ours in names.items()})
    if found:
        raise CheckpointError(f"{path}: the weights look like {variant}, but some are {found}")
    for name, tensor in weights.items():
        if not _is_finite(tensor):
            raise CheckpointError(f"{path}: '{name}' contains something other than finite numbers")
    own = {names[name]: tensor.float() for name, tensor in weights.items()}
    model.load_state_dict(own, assign=True)
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors that tagging needs, by their published names (new style).

    Raises:
        CheckpointError: the file is missing, not a checkpoint, or truncated.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    contents = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(contents, dict) and isinstance(contents.get("model"), dict):
        contents = contents["model"]
    if not isinstance(contents, dict) or not contents:
        raise CheckpointError(f"{path}: contains a {type(contents).__name__} in place of weights")
    weights = {}
    for name, tensor in contents.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: '{name}' is a {type(tensor).__name__}, not a tensor")
        if name.startswith(OLD_HEAD_PREFIX):
            name = "tagging_head." + name.removeprefix(OLD_HEAD_PREFIX)
        if not name.startswith(UNUSED_PREFIXES) and not name.endswith(UNUSED_SUFFIXES):
            weights[name] = tensor
    return weights


def differences(found: Shapes, expected: Shapes) -> str:
    """Describe which weights are missing, unexpected or misshapen, each with the first few names.

    Args:
        found: shape of each weight that is there, by its name.
        expected: likewise, of each that should be there.

    Returns:
        One line; empty if there is no difference.
    """
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "misshapen": [
            f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if tuple(found[name]) != tuple(expected[name])
        ],
    }
    return "; ".join(
        f"{len(names)} {problem} ({', '.join(names[:SHOWN_NAMES])}"
        f"{', …' if len(names) > SHOWN_NAMES else ''})"
        for problem, names in problems.items()
        if names
    )


def save_model(model: RAM, path: Path) -> None:
    """Write the weights in the published format: `{"model": state_dict}`, or as safetensors."""
    weights = {published_name(k): v.contiguous() for k, v in model.state_dict().items()}

    def write(target: Path) -> None:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(weights, target)
        else:
            torch.save({"model": weights}, target)

    write_atomically(path, write)  # the model's weights may be mapped from this very file


def published_name(name: str) -> str:
    """Return what published checkpoints call the weight that `RAM.state_dict` calls `name`."""
    name = _replace_prefix(name, MODULES)
    if match := LAYER.fullmatch(name):
        return match[1] + _replace_prefix(match[2], LAYER_PARTS)
    if match := DOWNSAMPLE.fullmatch(name):
        return f"{match[1]}{int(match[2]) - 1}{match[3]}"
    return name


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # of files that are refused anyway
            # Mapping reads only the tensors that are used, of a file that holds many more.
            mmap = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch's unpickler raises nearly anything on other files
        with path.open("rb") as file:
            looks_saved = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        if looks_saved and not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: the checkpoint is truncated, get it again") from error
        raise CheckpointError(
            f"{path}: is not a checkpoint that can be loaded without running code in it "
            f"({type(error).__name__})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is not a safetensors file, or a truncated one ({error})"
        ) from error


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.numel():  # aminmax refuses it
        return True
    return tensor.is_floating_point() and all(map(isfinite, tensor.aminmax()))


def _require_variant(
    path: Path, variant: Variant, backbone: str | None, image_size: int | None
) -> None:
    if backbone not in (None, variant.backbone) or image_size not in (None, variant.image_size):
        wanted = f"{backbone or variant.backbone} at {image_size or variant.image_size} px"
        raise CheckpointError(f"{path}: the weights look like {variant}, not like {wanted}")


def _replace_prefix(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for ours, published in prefixes:
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name
