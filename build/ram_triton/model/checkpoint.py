"""Published RAM checkpoints: their weights' names, reading, writing, noise in their place."""

import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ram_triton.errors import CheckpointError, VariantError
from ram_triton.files import write_atomically
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Shapes, Variant, detect_variant
from ram_triton.model.weight_files import SAFETENSORS, weight_files

TEXT_PARTS = ("tag_encoder.", "text_decoder.")  # they serve training and captioning
BUFFERS = (".relative_position_index", ".attn_mask", ".position_ids")  # rebuilt from the sizes
OLD_HEAD_PREFIX = "vision_multi."  # what the first published checkpoints called tagging_head
SHOWN_NAMES = 3
ZIP_MAGIC = b"PK\x03\x04"
# Every Swin has it: what precedes its name is of a wrapper, as `module.` is of DataParallel.
MARK = "patch_embed.proj.weight"
IMAGE_ENCODER = "visual_encoder."
DEEPEST = 3  # tables of weights are looked for in tables in tables
AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)", re.IGNORECASE)
PUBLISHED_TABLE = "model"
# What quantising libraries call the parts of a weight.
QUANTISED = re.compile(
    r"(.*\.)?(_packed_params.*|qweight|qzeros|absmax|quant_map|SCB|weight_scale)"
)
UNSAFE_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
SAVE_WEIGHTS = (
    'if you trust where it is from, save its weights alone: .venv/bin/python -c "import torch; '
    "c = torch.load('{path}', 'cpu', weights_only=False); "
    "torch.save(c.get('model') or c['state_dict'], 'weights.pth')\""
)

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

Weights = dict[str, Tensor]


def load_model(path: Path, backbone: str | None = None, image_size: int | None = None) -> RAM:
    """Load a published checkpoint of RAM or RAM++, `.pth` or `.safetensors`.

    Args:
        path: the checkpoint, as `weight_files` takes it.
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


def read_weights(path: Path, text: bool = False) -> dict[str, Tensor]:
    """Read the tensors that tagging needs, by their published names (new style).

    The weights may be in tables of tables, under the names that wrappers give them (DataParallel,
    Lightning, compiled models). If averaged weights (EMA) are beside the trained ones, they are
    taken: they are what a training evaluates.

    Args:
        path: as `weight_files` takes it.
        text: read the tensors of tag encoder and text decoder in their place, if there are any.

    Raises:
        CheckpointError: the file is missing, not a checkpoint, or truncated; or its weights are
            quantised, or not there.
    """
    parts = [
        _read_safetensors(file) if kind == SAFETENSORS else _read_torch(file)
        for file, kind in weight_files(path).items()
    ]
    contents = parts[0]
    if len(parts) > 1:
        contents = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
    weights = {}
    for name, tensor in _find_weights(path, contents).items():
        if name.startswith(OLD_HEAD_PREFIX):
            name = "tagging_head." + name.removeprefix(OLD_HEAD_PREFIX)
        if name.startswith(TEXT_PARTS) == text and not name.endswith(BUFFERS):
            _require_plain(path, name, tensor)
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


def random_model(variant: Variant) -> RAM:
    """Return a RAM whose tensors are noise, each seeded with the CRC-32 of its published name."""
    model = RAM.uninitialised(variant).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            seed = zlib.crc32(published_name(name).encode())
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
            tensor.copy_(_scaled(name, noise))
    return model


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
            if path.suffix == ".safetensors":  # which torch.load itself goes by
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            # Mapping reads only the tensors that are used, of a file that contains many more.
            mmap = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch's unpickler raises nearly anything on other files
        raise CheckpointError(f"{path}: {_unreadable(path, error)}") from error


def _unreadable(path: Path, error: Exception) -> str:
    """Why PyTorch cannot read a file, and what to do."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
                return "the checkpoint is truncated, get it again"
    else:
        with zipfile.ZipFile(path) as archive:
            files = [name.rpartition("/")[2] for name in archive.namelist()]
        if "constants.pkl" in files:
            return "is a TorchScript archive, not a checkpoint: save the model's state_dict()"
        if "data.pkl" not in files:
            return f"is an archive with {files[0] if files else 'nothing'}, not a checkpoint"
    if found := UNSAFE_GLOBAL.search(str(error)):
        remedy = SAVE_WEIGHTS.format(path=path)
        return f"cannot be read without running code, as it contains {found[1]}; {remedy}"
    return (
        f"is not a checkpoint that can be loaded without running code in it "
        f"({type(error).__name__})"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is not a safetensors file, or a truncated one ({error})"
        ) from error


def _find_weights(path: Path, contents: object) -> dict[str, Tensor]:
    """The table of a model's weights in what a file contains, without a wrapper's prefix."""
    found: list[tuple[bool, bool, int, Weights]] = []
    for place, table in _tables(contents):
        marks = [name for name in table if name.endswith(MARK)]
        prefixes = [name.removesuffix(MARK).removesuffix(IMAGE_ENCODER) for name in marks]
        for prefix in prefixes:
            others = tuple(other for other in prefixes if other.removeprefix(prefix))
            weights = {
                name.removeprefix(prefix): tensor
                for name, tensor in table.items()
                if name.startswith(prefix) and not (others and name.startswith(others))
            }
            averaged = bool(AVERAGED.search(f"{place}.{prefix}"))
            found.append((not averaged, place != PUBLISHED_TABLE, len(found), weights))
    if found:
        return min(found)[-1]  # the number of each is its own: weights are never compared
    if isinstance(contents, dict) and isinstance(contents.get(PUBLISHED_TABLE), dict):
        contents = contents[PUBLISHED_TABLE]
    if not isinstance(contents, dict) or not contents:
        raise CheckpointError(f"{path}: contains a {type(contents).__name__} in place of weights")
    for name, tensor in contents.items():
        _refuse_quantised(path, name, tensor)
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: '{name}' is a {type(tensor).__name__}, not a tensor")
    return contents


def _tables(contents: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """Yield each table of tensors, the outer ones first, with its place: names with dots."""
    if not isinstance(contents, dict) or depth > DEEPEST:
        return
    named = {name: value for name, value in contents.items() if isinstance(name, str)}
    weights = {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) or QUANTISED.fullmatch(name)
    }
    if weights:
        yield place, weights
    for name, value in named.items():
        yield from _tables(value, f"{place}.{name}".lstrip("."), depth + 1)


def _require_plain(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse what is not an array of floating-point numbers that are all there."""
    _refuse_quantised(path, name, tensor)
    if tensor.is_meta:
        raise CheckpointError(
            f"{path}: '{name}' is a meta tensor, a shape without numbers: save the model after "
            f"its weights are loaded"
        )
    if tensor.layout != torch.strided:
        raise CheckpointError(f"{path}: '{name}' is sparse: save it as a dense tensor")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: '{name}' is {_dtype(tensor)}, not floating-point numbers")


def _refuse_quantised(path: Path, name: object, tensor: object) -> None:
    plain = isinstance(tensor, Tensor) and not (tensor.is_quantized or tensor.dtype.itemsize == 1)
    named = isinstance(name, str) and QUANTISED.fullmatch(name)
    if named or (isinstance(tensor, Tensor) and not plain):
        kind = _dtype(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise CheckpointError(
            f"{path}: the weights are quantised ('{name}' is {kind}): take the checkpoint in "
            f"float32 or half precision; INT8=DIR makes an INT8 model of it"
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.numel() or all(map(math.isfinite, tensor.aminmax()))  # which refuses none


def _require_variant(
    path: Path, variant: Variant, backbone: str | None, image_size: int | None
) -> None:
    if backbone not in (None, variant.backbone) or image_size not in (None, variant.image_size):
        wanted = f"{backbone or variant.backbone} at {image_size or variant.image_size} px"
        raise CheckpointError(f"{path}: the weights look like {variant}, not like {wanted}")


def _scaled(name: str, noise: Tensor) -> Tensor:
    """Give noise the size that keeps activations of about 1, and spreads scores over 0 to 1."""
    if noise.dim() < 2:
        return 0.1 * noise + (1 if name.endswith("weight") else 0)
    if name == "label_embed":
        return noise
    gain = 6 if name == "head.classifier.weight" else 1
    return noise * gain / math.sqrt(math.prod(noise.shape[1:]))


def _replace_prefix(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for ours, published in prefixes:
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name
