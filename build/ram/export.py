"""Model to ONNX: one graph for the encoder, one for the head, with fixed parts folded in."""

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from .image_encoder import ImageEncoder
from .model import RAM
from .tagging_head import TaggingHead

OPSET = 20  # the first with Gelu as one operator, the last that TensorRT 10.0 reads
EXAMPLE_BATCH = 2  # the exporter takes a batch of 1 for a constant


class FoldedEncoder(nn.Module):
    """The image encoder with its relative position biases looked up beforehand."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        for module in self.encoder.modules():
            if isinstance(module, WindowAttention):
                _fold_bias(module)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed as `ImageEncoder`; the mean token's embedding is an output of its own too."""
        image_embeds = self.encoder(pixels)
        return image_embeds, image_embeds[:, 0]


class FoldedHead(nn.Module):
    """The tagging head with its labels fixed: what they ask first depends on no image."""

    def __init__(self, head: TaggingHead, label_embed: Tensor) -> None:
        super().__init__()
        self.layers, self.classifier = head.layers, head.classifier
        with torch.no_grad():
            queries = head.project(label_embed)
            self.register_buffer("queries", queries)
            self.register_buffer("projected", head.layers[0].attention.query(queries))

    def forward(self, image_embeds: Tensor) -> Tensor:
        """Score the fixed labels: (batch, tokens, image_width) to (batch, labels) logits."""
        first, *others = self.layers
        states = first.update(self.queries, self.projected, image_embeds)
        for layer in others:
            states = layer(states, image_embeds)
        return self.classifier(states).squeeze(-1)


def export_model(model: RAM, encoder_path: Path, head_path: Path) -> None:
    """Write both graphs, float32, with their weights in files beside them (`*.onnx.data`).

    Encoder: `pixels` uint8 (batch, size, size, 3) to `image_embeds` float32 (batch, 1 + tokens,
    width) and `embedding` float32 (batch, width). Head: `image_embeds` to `logits` float32
    (batch, tags). The batch is free, all else fixed.
    """
    variant = model.variant
    size = variant.image_size
    pixels = torch.zeros(EXAMPLE_BATCH, size, size, 3, dtype=torch.uint8)
    _export(FoldedEncoder(model.encoder), pixels, "pixels", ("image_embeds", "embedding"),
            encoder_path)  # fmt: skip
    image_embeds = torch.zeros(EXAMPLE_BATCH, variant.num_tokens, variant.image_width)
    _export(FoldedHead(model.head, model.label_embed), image_embeds, "image_embeds", ("logits",),
            head_path)  # fmt: skip


def _export(
    module: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str], path: Path
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module.eval(),
            (example,),
            path,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=True,
        )


def _fold_bias(attention: WindowAttention) -> None:
    """Make the attention add a stored bias instead of gathering it from its table."""
    attention.fused_attn = False  # the fused operator would be taken apart again by the exporter
    attention.register_buffer("folded_bias", attention._get_rel_pos_bias().detach())
    attention._get_rel_pos_bias = lambda: attention.folded_bias
