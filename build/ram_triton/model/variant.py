"""The sizes that distinguish one RAM from another, and RAM from RAM++."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ram_triton.errors import VariantError

# Embedding width, depths and attention heads of the published Swin Transformers
# (Liu et al. 2021, "Swin Transformer", section 3.3).
BACKBONES = {
    "swin_b": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_l": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
PATCH_SIZE = 4
STAGES = 4
# Side, in pixels, of what one token of the last stage sees: patches of 4 px, doubled three times.
STRIDE: int = PATCH_SIZE * 2 ** (STAGES - 1)
DESCRIPTIONS = 51  # per tag in RAM++'s checkpoints, which do not say so themselves

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Variant:
    """All sizes of a RAM; everything else is derived from them.

    Attributes:
        image_size: side of the square input, in pixels.
        embed_dim: channels of the Swin's first stage; each later stage doubles them.
        depths: blocks of each Swin stage.
        num_heads: attention heads of each Swin stage.
        image_width: width of an image embedding (512 in published checkpoints).
        label_width: width of a label embedding (512 in published checkpoints).
        num_tags: labels that the model knows.
        hidden_size: width of the tagging head (768).
        num_layers: layers of the tagging head (2).
        intermediate_size: inner width of the tagging head's feed-forward networks (3072).
        attention_heads: heads of the tagging head's cross-attention.
        descriptions: label embeddings per tag: 1 for RAM, more for RAM++.
    """

    image_size: int
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    image_width: int
    label_width: int
    num_tags: int
    hidden_size: int
    num_layers: int
    intermediate_size: int
    attention_heads: int = 4
    descriptions: int = 1

    @property
    def architecture(self) -> str:
        """`RAM` or `RAM++`."""
        return "RAM" if self.descriptions == 1 else "RAM++"

    @property
    def window_size(self) -> int:
        """Side of an attention window in tokens: the last stage is exactly one window."""
        return self.image_size // STRIDE

    @property
    def num_tokens(self) -> int:
        """Number of embeddings of an image: the mean token and those of the last stage."""
        return self.window_size**2 + 1

    @property
    def backbone(self) -> str:
        """`swin_b`, `swin_l`, or the sizes of a Swin that was not published."""
        swin = (self.embed_dim, self.depths, self.num_heads)
        for name, sizes in BACKBONES.items():
            if swin == sizes:
                return name
        return f"swin({self.embed_dim} wide, depths {'/'.join(map(str, self.depths))})"

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes by name, and what they are called, for the manifest."""
        return {"architecture": self.architecture, "backbone": self.backbone, **asdict(self)}

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "Variant":
        """Read what `as_dict` returned, also if it went through JSON.

        Raises:
            KeyError: a size is missing.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            size = sizes[field.name]
            found[field.name] = tuple(size) if isinstance(size, list) else size
        return cls(**found)

    def __str__(self) -> str:
        name = "" if self.architecture == "RAM" else f"{self.architecture}, "
        return f"{name}{self.backbone} at {self.image_size} px with {self.num_tags} tags"


def published_variant(
    backbone: str, image_size: int, num_tags: int, descriptions: int = 1
) -> Variant:
    """Return the variant of a published RAM: `swin_b` or `swin_l`, 224 or 384 px.

    With `DESCRIPTIONS` per tag it is a RAM++.
    """
    embed_dim, depths, num_heads = BACKBONES[backbone]
    return Variant(
        image_size=image_size,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        image_width=512,
        label_width=512,
        num_tags=num_tags,
        hidden_size=768,
        num_layers=2,
        intermediate_size=3072,
        descriptions=descriptions,
    )


def detect_variant(shapes: Shapes) -> Variant:
    """Read the variant off the shapes of a checkpoint's tensors.

    Args:
        shapes: shape of each tensor, by its published name.

    Raises:
        VariantError: a tensor that shows a size is missing or has the wrong rank.
    """
    label_embed = _shape(shapes, "label_embed", 2)
    embed_dim = _shape(shapes, "visual_encoder.patch_embed.proj.weight", 4)[0]
    window_area, _ = _shape(shapes, _bias_table(0, 0), 2)
    head = "tagging_head.encoder.layer"
    intermediate, hidden = _shape(shapes, f"{head}.0.intermediate.dense.weight", 2)
    depths, num_heads = _published_swin(embed_dim) or _read_swin(shapes)
    image_width = _shape(shapes, "image_proj.weight", 2)[0]
    descriptions = DESCRIPTIONS if "reweight_scale" in shapes else 1
    rows, label_width = label_embed
    if rows % descriptions:
        raise VariantError(
            f"RAM++ has {descriptions} descriptions per tag, but 'label_embed' has {rows} rows"
        )
    if descriptions > 1 and label_width != image_width:
        raise VariantError(
            f"RAM++ compares images and labels, but they are {image_width} and {label_width} wide"
        )
    return Variant(
        # A table of (2·window - 1)² rows contains the bias of each relative position.
        image_size=(round(window_area**0.5) + 1) // 2 * STRIDE,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        image_width=image_width,
        label_width=label_width,
        num_tags=rows // descriptions,
        hidden_size=hidden,
        num_layers=_count(shapes, rf"{re.escape(head)}\.(\d+)\."),
        intermediate_size=intermediate,
        descriptions=descriptions,
    )


def _published_swin(embed_dim: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return depths and heads of the published Swin of this width, so that a lost block shows."""
    return next((sizes[1:] for sizes in BACKBONES.values() if sizes[0] == embed_dim), None)


def _read_swin(shapes: Shapes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return depths and heads of a Swin that was not published, from its own tensors."""
    depths = tuple(
        _count(shapes, rf"visual_encoder\.layers\.{stage}\.blocks\.(\d+)\.")
        for stage in range(STAGES)
    )
    num_heads = tuple(_shape(shapes, _bias_table(stage, 0), 2)[1] for stage in range(STAGES))
    return depths, num_heads


def _bias_table(stage: int, block: int) -> str:
    return f"visual_encoder.layers.{stage}.blocks.{block}.attn.relative_position_bias_table"


def _count(shapes: Shapes, pattern: str) -> int:
    """Return one more than the highest number that `pattern` finds at the start of a name."""
    found = (re.match(pattern, name) for name in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise VariantError(f"not the weights of a RAM: '{name}' is missing")
    if len(shapes[name]) != rank:
        raise VariantError(f"'{name}' has shape {tuple(shapes[name])}, not {rank} dimensions")
    return tuple(shapes[name])
