"""Model to ONNX: one graph for the encoder, and two each for the head and for its heat maps: with
their labels folded in, and with labels as an input.
"""

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn

from ram_triton.model.maps import HeatMaps, KnownMaps
from ram_triton.model.ram import (
    RAM,
    ImageEncoder,
    TaggingHead,
    TaggingLayer,
    WindowAttention,
    weigh_descriptions,
)

OPSET = 20  # the first with Gelu as one operator, the last that TensorRT 10.0 reads
EXAMPLE_BATCH = 2  # the exporter takes a batch of 1 for a constant
EXAMPLE_LABELS = 3  # likewise; not the batch's number, or the exporter takes both for one
EXAMPLE_TAGS = 4  # likewise, per image
# Those of the optimiser's rules that these graphs need. It has another, of pairs of slices, which
# tries all pairs of nodes: that took as long as all the rest of the export.
RULES = (
    rules.collapse_slice_rule,
    rules.materialize_reshape_shape_rule,
    rules.reshape_reshape_rule,
    rules.squeeze_reshape_1d_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)
OPTIMISATIONS = 2  # what is folded lets further rules apply
UNLIMITED = 2**40  # bytes of a tensor: masks of 5 MB are folded too

Inputs = Mapping[str, tuple[Tensor, str | tuple[str, ...]]]  # see `export_module`


class FoldedEncoder(nn.Module):
    """The image encoder with its relative position biases looked up in advance."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        weights = {id(weight): weight for weight in encoder.parameters()}
        self.encoder = copy.deepcopy(encoder, weights)  # a copy that shares them
        for module in self.encoder.modules():
            if isinstance(module, WindowAttention):
                _fold_bias(module)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed as `ImageEncoder`; the mean token's embedding is a second output."""
        image_embeds = self.encoder(pixels)
        return image_embeds, image_embeds[:, 0]


class FoldedHead(nn.Module):
    """The tagging head with its labels fixed: their first queries do not depend on the image."""

    queries: Tensor
    projected: Tensor

    def __init__(self, head: TaggingHead, label_embed: Tensor) -> None:
        super().__init__()
        first = head.layers[0]
        assert isinstance(first, TaggingLayer)
        self.first, self.others, self.classifier = first, head.layers[1:], head.classifier
        with torch.no_grad():
            queries = head.project(label_embed)
            self.register_buffer("queries", queries)
            self.register_buffer("projected", first.attention.query(queries))

    def forward(self, image_embeds: Tensor) -> Tensor:
        """Score the fixed labels: (batch, tokens, image_width) to (batch, labels) logits."""
        states = self.first.update(self.queries, self.projected, image_embeds)
        for layer in self.others:
            states = layer(states, image_embeds)
        logits: Tensor = self.classifier(states)
        return logits.squeeze(-1)


class WeighingHead(nn.Module):
    """RAM++'s head with its labels fixed: their queries depend on the image from the start."""

    descriptions: Tensor
    scale: Tensor

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.head = model.head
        with torch.no_grad():
            self.register_buffer("descriptions", model.descriptions())
            self.register_buffer("scale", model.reweight_scale.exp())

    def forward(self, image_embeds: Tensor) -> Tensor:
        """Score the fixed labels: (batch, tokens, image_width) to (batch, labels) logits."""
        labels = weigh_descriptions(image_embeds[:, 0], self.descriptions, self.scale)
        logits: Tensor = self.head(image_embeds, labels)
        return logits


class WeighingOpenHead(nn.Module):
    """RAM++'s head with labels as an input, all descriptions of a label in one row."""

    scale: Tensor

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.head, self.count = model.head, model.variant.descriptions
        with torch.no_grad():
            self.register_buffer("scale", model.reweight_scale.exp())

    def forward(self, image_embeds: Tensor, label_embeds: Tensor) -> Tensor:
        """Score (labels, descriptions · label_width); returns (batch, labels) logits."""
        descriptions = label_embeds.view(label_embeds.shape[0], self.count, -1)
        labels = weigh_descriptions(image_embeds[:, 0], descriptions, self.scale)
        logits: Tensor = self.head(image_embeds, labels)
        return logits


def export_model(model: RAM, encoder_path: Path, head_path: Path) -> None:
    """Write the encoder, and the head with the model's labels folded in."""
    export_encoder(model, encoder_path)
    export_head(model, head_path)


def export_encoder(model: RAM, path: Path) -> None:
    """Write the encoder, float32, with its weights in a file beside it (`.data`).

    `pixels` uint8 (batch, size, size, 3) to `image_embeds` float32 (batch, 1 + tokens, width) and
    `embedding` float32 (batch, width). The batch is free, all else is fixed.
    """
    size = model.variant.image_size
    pixels = torch.zeros(EXAMPLE_BATCH, size, size, 3, dtype=torch.uint8)
    outputs = "image_embeds", "embedding"
    export_module(FoldedEncoder(model.encoder), {"pixels": (pixels, "batch")}, outputs, path)


def export_head(model: RAM, path: Path) -> None:
    """Write the head with the model's labels folded in, as `export_encoder` does.

    `image_embeds` float32 (batch, 1 + tokens, width) to `logits` float32 (batch, tags).
    """
    plain = model.variant.descriptions == 1
    head = FoldedHead(model.head, model.label_embed) if plain else WeighingHead(model)
    export_module(head, {"image_embeds": (_example_embeds(model), "batch")}, ("logits",), path)


def export_open_head(model: RAM, path: Path) -> None:
    """Write the head with labels as an input, as `export_encoder` does.

    `image_embeds` float32 (batch, 1 + tokens, width) and `label_embeds` float32 (labels,
    label_width) to `logits` float32 (batch, labels). Batch and labels are free, and independent of
    each other: the same labels are asked of every image.

    RAM++'s takes all descriptions of a label in one row, (labels, descriptions · label_width). A
    label with a single embedding is given that repeated: equal ones weigh the same.
    """
    inputs = {
        "image_embeds": (_example_embeds(model), "batch"),
        "label_embeds": (_example_labels(model), "labels"),
    }
    head = model.head if model.variant.descriptions == 1 else WeighingOpenHead(model)
    export_module(head, inputs, ("logits",), path)


def export_maps(model: RAM, path: Path) -> None:
    """Write the heat maps of the model's labels, as `export_encoder` does.

    `image_embeds` float32 (batch, 1 + tokens, width) and `tag_ids` int32 (batch, tags), -1 for
    padding, to `maps` float32 (batch, tags, side, side). Batch and tags are free.
    """
    inputs: Inputs = {
        "image_embeds": (_example_embeds(model), "batch"),
        "tag_ids": (_example_ids(), ("batch", "tags")),
    }
    export_module(KnownMaps(model), inputs, ("maps",), path)


def export_open_maps(model: RAM, path: Path) -> None:
    """Write the heat maps with labels as an input, as `export_open_head` and `export_maps` do.

    `tag_ids` are rows of `label_embeds`.
    """
    inputs: Inputs = {
        "image_embeds": (_example_embeds(model), "batch"),
        "label_embeds": (_example_labels(model), "labels"),
        "tag_ids": (_example_ids(), ("batch", "tags")),
    }
    export_module(HeatMaps(model), inputs, ("maps",), path)


def export_module(
    module: nn.Module,
    inputs: Inputs,
    outputs: Sequence[str],
    path: Path,
) -> None:
    """Write a module as ONNX, float32, with its weights in a file beside it (`.data`).

    Args:
        module: its forward takes the inputs in this order.
        inputs: each input by name: an example, and the name or names of its first dimensions,
            which are free; the example's sizes there must differ from 1.
        outputs: names of the outputs, in order.
        path: the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [(names,) if isinstance(names, str) else names for _, names in inputs.values()]
    free = {name: torch.export.Dim(name, min=1) for names in sizes for name in names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(
                {place: free[name] for place, name in enumerate(names)} for names in sizes
            ),
        )
        assert program is not None  # as no file is given
        _optimise(program.model)
        program.save(path, external_data=True)


def _optimise(model: onnx_ir.Model) -> None:
    """Fold all constants, and merge what the exporter writes as several operators."""
    for _ in range(OPTIMISATIONS):
        optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=UNLIMITED,
            output_size_limit=UNLIMITED,
        )
        rewriter.rewrite(model, RULES)
    for change in (
        passes.ClearMetadataAndDocStringPass(),  # the places in PyTorch's code that it came from
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        change(model)


def _example_embeds(model: RAM) -> Tensor:
    variant = model.variant
    return torch.zeros(EXAMPLE_BATCH, variant.num_tokens, variant.image_width)


def _example_labels(model: RAM) -> Tensor:
    variant = model.variant
    return torch.zeros(EXAMPLE_LABELS, variant.descriptions * variant.label_width)


def _example_ids() -> Tensor:
    return torch.zeros(EXAMPLE_BATCH, EXAMPLE_TAGS, dtype=torch.int32)


def _fold_bias(attention: WindowAttention) -> None:
    """Make the attention add a stored bias instead of gathering it from its table."""
    attention.fused_attn = False  # the fused operator would be taken apart again by the exporter
    bias = attention._get_rel_pos_bias().detach()
    attention.register_buffer("folded_bias", bias)
    attention._get_rel_pos_bias = lambda: attention.folded_bias  # type: ignore
