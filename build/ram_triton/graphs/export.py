"""Model to ONNX: a graph for the encoder, and two for the head: with its labels folded in, and with
labels as an input."""

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ram_triton.model.ram import RAM, ImageEncoder, TaggingHead, WindowAttention, weigh_descriptions

OPSET = 20  # the first with Gelu as one operator, the last that TensorRT 10.0 reads
EXAMPLE_BATCH = 2  # the exporter takes a batch of 1 for a constant
EXAMPLE_LABELS = 3  # likewise; another number than the batch, or the exporter takes both for one


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


class WeighingHead(nn.Module):
    """RAM++'s head with its labels fixed: what they ask depends on the image from the start."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.head = model.head
        with torch.no_grad():
            self.register_buffer("descriptions", model.descriptions())
            self.register_buffer("scale", model.reweight_scale.exp())

    def forward(self, image_embeds: Tensor) -> Tensor:
        """Score the fixed labels: (batch, tokens, image_width) to (batch, labels) logits."""
        labels = weigh_descriptions(image_embeds[:, 0], self.descriptions, self.scale)
        return self.head(image_embeds, labels)


class WeighingOpenHead(nn.Module):
    """RAM++'s head that is given its labels, each as all its descriptions in one row."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.head, self.count = model.head, model.variant.descriptions
        with torch.no_grad():
            self.register_buffer("scale", model.reweight_scale.exp())

    def forward(self, image_embeds: Tensor, label_embeds: Tensor) -> Tensor:
        """Score (labels, descriptions · label_width); returns (batch, labels) logits."""
        descriptions = label_embeds.unflatten(1, (self.count, -1))
        labels = weigh_descriptions(image_embeds[:, 0], descriptions, self.scale)
        return self.head(image_embeds, labels)


def export_model(model: RAM, encoder_path: Path, head_path: Path) -> None:
    """Write both graphs, float32, with their weights in files beside them (`*.onnx.data`).

    Encoder: `pixels` uint8 (batch, size, size, 3) to `image_embeds` float32 (batch, 1 + tokens,
    width) and `embedding` float32 (batch, width). Head: `image_embeds` to `logits` float32
    (batch, tags). The batch is free, all else fixed.
    """
    variant = model.variant
    size = variant.image_size
    pixels = torch.zeros(EXAMPLE_BATCH, size, size, 3, dtype=torch.uint8)
    export_module(
        FoldedEncoder(model.encoder),
        {"pixels": (pixels, "batch")},
        ("image_embeds", "embedding"),
        encoder_path,
    )
    export_head(model, head_path)


def export_head(model: RAM, path: Path) -> None:
    """Write the head's graph alone, as `export_model` does."""
    variant = model.variant
    image_embeds = torch.zeros(EXAMPLE_BATCH, variant.num_tokens, variant.image_width)
    plain = variant.descriptions == 1
    head = FoldedHead(model.head, model.label_embed) if plain else WeighingHead(model)
    export_module(head, {"image_embeds": (image_embeds, "batch")}, ("logits",), path)


def export_open_head(model: RAM, path: Path) -> None:
    """Write the head that is given its labels, float32, with its weights in a file beside it.

    `image_embeds` float32 (batch, tokens, width) and `label_embeds` float32 (labels, label_width)
    to `logits` float32 (batch, labels). Batch and labels are free, and independent of each other:
    the same labels are asked of every image.

    RAM++'s takes all descriptions of a label in one row, (labels, descriptions · label_width). A
    label that has one embedding alone is given with that repeated: equal ones weigh the same.
    """
    variant = model.variant
    image_embeds = torch.zeros(EXAMPLE_BATCH, variant.num_tokens, variant.image_width)
    label_embeds = torch.zeros(EXAMPLE_LABELS, variant.descriptions * variant.label_width)
    examples = {"image_embeds": (image_embeds, "batch"), "label_embeds": (label_embeds, "labels")}
    head = model.head if variant.descriptions == 1 else WeighingOpenHead(model)
    export_module(head, examples, ("logits",), path)


def export_module(
    module: nn.Module,
    examples: Mapping[str, tuple[Tensor, str | tuple[str, ...]]],
    output_names: Sequence[str],
    path: Path,
) -> None:
    """Write a module as ONNX, float32, with its weights in a file beside it.

    Args:
        module: its forward takes the inputs in this order.
        examples: each input by name: an example, and the name or names of its first dimensions,
            which are free; the example's sizes there must differ from 1.
        output_names: of the outputs, in order.
        path: the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [(names,) if isinstance(names, str) else names for _, names in examples.values()]
    free = {name: torch.export.Dim(name, min=1) for names in sizes for name in names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in examples.values()),
            path,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(output_names),
            dynamic_shapes=tuple(
                {place: free[name] for place, name in enumerate(names)} for names in sizes
            ),
            external_data=True,
        )


def _fold_bias(attention: WindowAttention) -> None:
    """Make the attention add a stored bias instead of gathering it from its table."""
    attention.fused_attn = False  # the fused operator would be taken apart again by the exporter
    attention.register_buffer("folded_bias", attention._get_rel_pos_bias().detach())
    attention._get_rel_pos_bias = lambda: attention.folded_bias
