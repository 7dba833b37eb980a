"""Where training starts from: nothing, a Swin Transformer's weights, or a RAM checkpoint."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import differences, load_model, read_weights
from ram_triton.model.ram import RAM, SwinTransformer, TaggingHead
from ram_triton.model.variant import Variant

if TYPE_CHECKING:  # so that training without captions does not import transformers
    from ram_triton.training.text import TextParts

INITIAL_STD = 0.02  # of the tagging head's weights, as of any BERT (Devlin et al. 2019)
QUERY_STD = 0.2  # of the labels' first queries; a toy model learned more slowly with 0.03 and 0.9
SMALLEST_NORM = 1e-6  # of label embeddings, for those that are all zero
BIAS_TABLE_SUFFIX = ".relative_position_bias_table"
CLASSIFIER_PREFIX = "head."  # of Swin weights; RAM has its own
TEXT_PREFIXES = ("tag_encoder.", "text_decoder.")

Say = Callable[[str], None]


def from_scratch(variant: Variant, label_embed: Tensor) -> RAM:
    """Return a RAM with random weights, drawn from torch's global generator.

    The head's layers' are BERT's (normal, std 0.02, no bias), those of image projection and
    classifier PyTorch's, as in RAM's reference. Two are drawn larger than there: the image
    encoder's matrices by Glorot's rule, see `_draw_swin`, and the label projection, see
    `_draw_label_projection`.

    Args:
        variant: the sizes.
        label_embed: text embedding of each tag, (num_tags, label_width).

    Raises:
        ValueError: the label embeddings are not of the variant's sizes.
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


def from_swin(path: Path, variant: Variant, label_embed: Tensor, say: Say = print) -> RAM:
    """Return a RAM whose Swin Transformer has been trained before, and all else as from scratch.

    Args:
        path: Swin weights in Microsoft's or timm's naming, `.pth` or `.safetensors`. Classifiers
            in them are passed over, position tables are fitted to the variant's windows.
        variant: the sizes.
        label_embed: text embedding of each tag, (num_tags, label_width).
        say: is told what was fitted.

    Raises:
        CheckpointError: the file cannot be read, or is not of a Swin of that variant's sizes.
        ValueError: the label embeddings are not of the variant's sizes.
    """
    model = from_scratch(variant, label_embed)
    load_swin(model.encoder.swin, path, say)
    return model


def from_ram(
    path: Path, label_embed: Tensor, image_size: int | None = None, say: Say = print
) -> RAM:
    """Return a trained RAM with another vocabulary: new label embeddings, the rest kept.

    Tags whose label embedding stays the same keep their logits. The label projection is kept only
    where the new label embeddings are as wide as the old ones: another width means another text
    encoder, so it starts anew, and no tag means anything until it has been trained.

    Args:
        path: a RAM checkpoint in the published format.
        label_embed: text embedding of each new tag, (tags, label_width).
        image_size: in pixels, the checkpoint's where None; position tables are fitted to it.
        say: is told what was fitted, and what starts anew.

    Raises:
        CheckpointError: the file is no RAM checkpoint, or a RAM++'s.
        ValueError: the label embeddings are no table.
    """
    if label_embed.dim() != 2:
        raise ValueError(f"the label embeddings are {tuple(label_embed.shape)}, not (tags, width)")
    trained = load_model(path)
    if trained.variant.descriptions > 1:
        raise CheckpointError(f"{path}: a RAM++ checkpoint; training starts from a RAM's")
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
        say(
            f"{path}: its label embeddings are {trained.variant.label_width} wide, the new ones "
            f"{label_width}: the label projection starts anew"
        )
        for name in ("weight", "bias"):
            weights[f"head.label_projection.{name}"] = getattr(model.head.label_projection, name)
    if variant.image_size != trained.variant.image_size:
        say(f"{path}: position tables go from {trained.variant.image_size} to {image_size} px")
        _fit_bias_tables(weights, variant.window_size)
    model.load_state_dict(weights)
    return model


def load_swin(swin: SwinTransformer, path: Path, say: Say = print) -> None:
    """Load weights into a Swin Transformer; see `from_swin` for files and errors."""
    weights = {
        name: tensor.float()
        for name, tensor in read_weights(path).items()
        if not name.startswith(CLASSIFIER_PREFIX)
    }
    expected = swin.state_dict()
    tables = {name: t for name, t in weights.items() if name.endswith(BIAS_TABLE_SUFFIX)}
    # timm looks up the block of each table, so those of blocks that are not there stand aside.
    unknown = {name: weights.pop(name) for name in tables.keys() - expected.keys()}
    with _quiet_interpolation():
        weights = checkpoint_filter_fn(weights, swin) | unknown
    _require(path, "this Swin Transformer", weights, expected)
    swin.load_state_dict(weights)
    fitted = sum(table.shape != expected[name].shape for name, table in tables.items())
    if fitted:
        window = swin.layers[0].blocks[0].attn.window_size[0]
        say(f"{path}: fitted {fitted} position tables to windows of {window} × {window} tokens")


def load_text(text: "TextParts", path: Path, say: Say = print) -> None:
    """Load tag encoder and text decoder from a RAM checkpoint, if it has them.

    Args:
        text: the parts, which are left as they are where the checkpoint has none.
        path: a checkpoint that `from_ram` has read.
        say: is told where the checkpoint has none.

    Raises:
        CheckpointError: the checkpoint's are of other sizes.
    """
    if path.suffix == ".safetensors":
        contents = safetensors.torch.load_file(path)
    else:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        name: tensor.float()
        for name, tensor in contents.get("model", contents).items()
        if name.startswith(TEXT_PREFIXES) and not name.endswith(".position_ids")
    }
    if not weights:
        say(f"{path}: has no tag encoder and text decoder, they start anew")
        return
    state = text.state_dict()
    # Published RAMs have no token types.
    expected = {name: t for name, t in state.items() if "token_type_embeddings" not in name}
    _require(path, "these text parts", weights, expected)
    text.load_state_dict(state | weights)


def _draw_swin(swin: SwinTransformer) -> None:
    """Draw matrices by the rule of Glorot and Bengio (2010, equation 16), biases zero.

    The usual std of 0.02 suits the widths of published Swins; in one a few dozen channels wide
    blocks drawn so hardly add to what passes them by, and learn slowly.
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
    """Draw it so that queries have std `QUERY_STD`, whatever the label embeddings' norm.

    With PyTorch's own draw, which the reference keeps, label embeddings of unit norm make queries
    of about 0.03: they all look alike beside what attention adds, and training hardly begins. Much
    larger ones drown the image in turn.
    """
    norm = label_embed.detach().norm(dim=1).mean().clamp(min=SMALLEST_NORM).item()
    nn.init.normal_(head.label_projection.weight, std=QUERY_STD / norm)
    nn.init.zeros_(head.label_projection.bias)


def _fit_bias_tables(weights: dict[str, Tensor], window: int) -> None:
    """Interpolate all relative position bias tables, in place, to a window's size.

    As BEiT's fine-tuning does, and RAM's reference after it: distances are spread geometrically,
    so that near ones keep their meaning. (timm's is linear between them, the reference's cubic.)
    """
    for name, table in weights.items():
        if name.endswith(BIAS_TABLE_SUFFIX):
            shape = ((2 * window - 1) ** 2, table.shape[1])
            with _quiet_interpolation():
                weights[name] = resize_rel_pos_bias_table(table, (window, window), shape)


def _quiet_interpolation() -> warnings.catch_warnings:
    """Keep from users what timm's interpolation warns developers of: speed, and an index's type."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _require(
    path: Path, whose: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Compare names and shapes, and tell all differences in one line."""
    told = differences(_shapes(found), _shapes(expected))
    if told:
        raise CheckpointError(f"{path}: the weights are not those of {whose}: {told}")


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
