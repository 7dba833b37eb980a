"""Where training starts from: nothing, a Swin Transformer's weights, or a RAM checkpoint."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import differences, load_model, read_weights
from ram_triton.model.ram import RAM, SwinTransformer, TaggingHead
from ram_triton.model.variant import Variant

if TYPE_CHECKING:  # so that training without captions does not import transformers
    from ram_triton.training.text import TextParts

INITIAL_STD = 0.02  # of the tagging head's weights, as of any BERT (Devlin et al. 2019)
QUERY_STD = 0.2  # of the labels' first queries; a toy model learned more slowly by 0.03 and 0.9
SMALLEST_NORM = 1e-6  # of label embeddings, if all are zero
BIAS_TABLE_SUFFIX = ".relative_position_bias_table"
CLASSIFIER_PREFIX = "head."  # of Swin weights; RAM has its own

Log = Callable[[str], None]


def from_scratch(variant: Variant, label_embed: Tensor) -> RAM:
    """Return a RAM with random weights, drawn from torch's global generator.

    As in RAM's reference, the head's layers have BERT's (normal, std 0.02, no bias), image
    projection and classifier have PyTorch's. Two are larger than there: the image encoder's
    matrices, see `_draw_swin`, and the label projection, see `_draw_label_projection`.

    Args:
        variant: the sizes.
        label_embed: text embedding of each tag, (num_tags, label_width).

    Raises:
        ValueError: the label embeddings do not have the variant's sizes.
    """
    expected = (variant.num_tags, variant.label_width)
    if tuple(label_embed.shape) != expected:
        raise ValueError(f"the label embeddings are {tuple(label_embed.shape)}, not {expected}")
    model = RAM(variant)
    with torch.no_grad():
        model.label_embed.copy_(label_embed)
    _draw_swin(model.encoder.swin)
    _draw_layers(model.head)
    _draw_label_projection(model.head, model.label_embed)
    return model


def from_swin(path: Path, variant: Variant, label_embed: Tensor, log: Log = print) -> RAM:
    """Return a RAM with a trained Swin Transformer, and all else as from scratch.

    Args:
        path: Swin weights in Microsoft's or timm's naming, `.pth` or `.safetensors`. Classifiers
            in them are ignored, position tables are fitted to the variant's windows.
        variant: the sizes.
        label_embed: text embedding of each tag, (num_tags, label_width).
        log: reports what was fitted.

    Raises:
        CheckpointError: the file cannot be read, or its Swin does not have the variant's sizes.
        ValueError: the label embeddings do not have the variant's sizes.
    """
    model = from_scratch(variant, label_embed)
    load_swin(model.encoder.swin, path, log)
    return model


def from_ram(
    path: Path, label_embed: Tensor, image_size: int | None = None, log: Log = print
) -> RAM:
    """Return a trained RAM with another vocabulary: new label embeddings, the rest kept.

    Tags whose label embedding stays the same keep their logits. The label projection is kept only
    if the new label embeddings are as wide as the old ones. Another width means another text
    encoder: the projection then starts from random weights, and has to be trained first.

    Args:
        path: a RAM checkpoint in the published format.
        label_embed: text embedding of each new tag, (tags, label_width).
        image_size: in pixels; None: the checkpoint's. Position tables are fitted to it.
        log: reports what was fitted, and what starts from random weights.

    Raises:
        CheckpointError: the file is not a RAM checkpoint, or is a RAM++'s.
        ValueError: the label embeddings are not a table.
    """
    if label_embed.dim() != 2:
        raise ValueError(f"the label embeddings are {tuple(label_embed.shape)}, not (tags, width)")
    trained = load_model(path)
    if trained.variant.descriptions > 1:
        raise CheckpointError(f"{path}: is a RAM++ checkpoint; training starts from a RAM's")
    num_tags, label_width = label_embed.shape
    variant = replace(
        trained.variant,
        num_tags=num_tags,
        label_width=label_width,
        image_size=image_size or trained.variant.image_size,
    )
    model = from_scratch(variant, label_embed)
    weights = trained.state_dict() | {"label_embed": model.label_embed.detach()}
    if label_width != trained.variant.label_width:
        log(
            f"{path}: its label embeddings are {trained.variant.label_width} wide, the new ones "
            f"{label_width}: the label projection starts from random weights"
        )
        for name in ("weight", "bias"):
            weights[f"head.label_projection.{name}"] = getattr(model.head.label_projection, name)
    if variant.image_size != trained.variant.image_size:
        log(f"{path}: fitting position tables from {trained.variant.image_size} to {image_size} px")
        _fit_bias_tables(weights, variant.window_size)
    model.load_state_dict(weights)
    return model


def load_swin(swin: SwinTransformer, path: Path, log: Log = print) -> None:
    """Load weights into a Swin Transformer; see `from_swin` for files and errors."""
    weights = {
        name: tensor.float()
        for name, tensor in read_weights(path).items()
        if not name.startswith(CLASSIFIER_PREFIX)
    }
    expected = swin.state_dict()
    tables = {name: t for name, t in weights.items() if name.endswith(BIAS_TABLE_SUFFIX)}
    # timm looks up each table's block, so tables of missing blocks must not reach it.
    unknown = {name: weights.pop(name) for name in tables.keys() - expected.keys()}
    with _quiet_interpolation():
        fitted = dict(checkpoint_filter_fn(weights, swin))
    weights = fitted | unknown
    _require(path, "this Swin Transformer", weights, expected)
    swin.load_state_dict(weights)
    count = sum(table.shape != expected[name].shape for name, table in tables.items())
    if count:
        stages: Any = swin.layers
        window = stages[0].blocks[0].attn.window_size[0]
        log(f"{path}: fitted {count} position tables to windows of {window} × {window} tokens")


def load_text(text: "TextParts", path: Path, log: Log = print) -> None:
    """Load tag encoder and text decoder from a RAM checkpoint, if it has them.

    Args:
        text: the parts, which are left as they are if the checkpoint has none.
        path: a checkpoint that `from_ram` has read.
        log: reports if the checkpoint has none.

    Raises:
        CheckpointError: the checkpoint's have other sizes.
    """
    weights = {name: tensor.float() for name, tensor in read_weights(path, text=True).items()}
    if not weights:
        log(f"{path}: has no tag encoder and text decoder, they start from random weights")
        return
    state = text.state_dict()
    # Published RAMs have no token types.
    expected = {name: t for name, t in state.items() if "token_type_embeddings" not in name}
    _require(path, "these text parts", weights, expected)
    text.load_state_dict(state | weights)


def _draw_swin(swin: SwinTransformer) -> None:
    """Draw matrices by the rule of Glorot and Bengio (2010, equation 16), biases zero.

    The usual std of 0.02 suits the widths of published Swins. In a Swin that is a few dozen
    channels wide, such blocks add almost nothing to the residual stream, and learn slowly.
    """
    for module in swin.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _draw_layers(head: TaggingHead) -> None:
    for module in head.layers.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=INITIAL_STD)
            nn.init.zeros_(module.bias)


def _draw_label_projection(head: TaggingHead, label_embed: Tensor) -> None:
    """Draw it so that queries have std `QUERY_STD` for label embeddings of any norm.

    With PyTorch's initialisation, which the reference uses, label embeddings of unit norm give
    queries of about 0.03. They are small beside what attention adds, so all tags look alike, and
    training hardly begins. Much larger ones outweigh the image.
    """
    norm = label_embed.detach().norm(dim=1).mean().clamp(min=SMALLEST_NORM).item()
    nn.init.normal_(head.label_projection.weight, std=QUERY_STD / norm)
    nn.init.zeros_(head.label_projection.bias)


def _fit_bias_tables(weights: dict[str, Tensor], window: int) -> None:
    """Interpolate all relative position bias tables, in place, to a window's size.

    The distances are spread geometrically, so that near ones keep their meaning, as in BEiT's
    fine-tuning and RAM's reference. (timm interpolates linearly, the reference cubically.)
    """
    for name, table in weights.items():
        if name.endswith(BIAS_TABLE_SUFFIX):
            shape = ((2 * window - 1) ** 2, table.shape[1])
            with _quiet_interpolation():
                weights[name] = resize_rel_pos_bias_table(table, (window, window), shape)


def _quiet_interpolation() -> warnings.catch_warnings:
    """Hide timm's warnings about interpolation; they are for developers: speed, an index's type."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _require(
    path: Path, owner: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse weights whose names or shapes differ from the expected ones; lists all differences."""
    if different := differences(_shapes(found), _shapes(expected)):
        raise CheckpointError(f"{path}: the weights do not fit {owner}: {different}")


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
