"""Ways to make heat maps of a tag without gradients: of the head's attention, and baselines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from ram_triton.model.maps import KnownMaps
from ram_triton.model.ram import RAM, weigh_descriptions
from torch import Tensor, nn

TINY = 1e-6  # so that no map is zero


@contextmanager
def attention_of_last_stage(model: RAM) -> Iterator[list[Tensor]]:
    """Yield a list that holds the attention of the encoder's last stage, when it has run.

    One tensor per block, (heads, tokens, tokens): the stage is a single window.
    """
    found: list[Tensor] = []
    hooks = []
    for number, block in enumerate(model.encoder.swin.layers[-1].blocks):
        block.attn.fused_attn = False  # whose weights nothing returns

        def keep(_: nn.Module, __: object, weights: Tensor, number: int = number) -> None:
            found[number:] = [weights[0]]

        hooks.append(block.attn.softmax.register_forward_hook(keep))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Seen:
    """A picture, and what the model makes of it.

    Attributes:
        model: the model.
        pixels: uint8 (1, size, size, 3).
        embeds: image embeddings, (1, 1 + tokens, width).
        tags: the tags that maps are asked for.
        last_stage: attention of the encoder's last stage, (heads, tokens, tokens) of each block.
    """

    model: RAM
    pixels: Tensor
    embeds: Tensor
    tags: list[int]
    last_stage: list[Tensor]

    @cached_property
    def layers(self) -> list[Tensor]:
        """The head's attention for the tags, (heads, tags, 1 + tokens) of each layer."""
        return self.attention(self.tags)

    def attention(self, tags: Sequence[int] | slice) -> list[Tensor]:
        """Return the head's attention for some tags, (heads, tags, 1 + tokens) of each layer."""
        model, head = self.model, self.model.head
        labels = model.descriptions()[tags]
        if model.variant.descriptions > 1:
            scale = model.reweight_scale.exp()
            labels = weigh_descriptions(self.embeds[:, 0], labels, scale)
        else:
            labels = labels.squeeze(1)
        states, found = head.project(labels), []
        for layer in head.layers:
            query = layer.attention.query(states)
            found.append(layer.attention.weigh(query, self.embeds)[0])
            states = layer(states, self.embeds)
        return found


# Makes maps, (tags, tokens), whose sums are positive.
Way = Callable[[Seen], Tensor]


def ways_of_head(model: RAM) -> dict[str, Way]:
    """Return what can be made of the head's attention, without the mean token."""
    ways: dict[str, Way] = {"as served: layer 1, heads' attention × norm of their values": served}
    layers = range(model.variant.num_layers)
    for number in layers:
        for name, way in ways_of_layer(number, model.variant.attention_heads).items():
            ways[f"layer {number + 1}, {name}"] = way
    if len(layers) > 1:
        ways["all layers, rolled out"] = rolled_out_layers
    return ways


def served(seen: Seen) -> Tensor:
    """Return the maps that the server returns."""
    ids = torch.tensor(seen.tags)[None]
    return KnownMaps(seen.model)(seen.embeds, ids)[0].flatten(1)


def ways_of_layer(layer: int, heads: int) -> dict[str, Way]:
    """Return what can be made of one layer's attention."""

    def patches(seen: Seen) -> Tensor:  # (heads, tags, tokens)
        return seen.layers[layer][..., 1:]

    def less_all_tags(seen: Seen) -> Tensor:  # what a tag looks at more than others do on average
        everyone = shares(seen.attention(slice(None))[layer][..., 1:].mean(0)).mean(0)
        return (shares(patches(seen).mean(0)) - everyone).clamp(min=TINY)

    def one_head(seen: Seen, head: int) -> Tensor:
        return patches(seen)[head]

    return {
        "mean of heads": lambda seen: patches(seen).mean(0),
        "mean of heads, each without the mean token": lambda seen: shares(patches(seen)).mean(0),
        "strongest of heads": lambda seen: patches(seen).amax(0),
        "mean of heads, less that of all tags": less_all_tags,
        "norm of what is added to the query": partial(weighed_values, layer=layer),
        "mean of heads, rolled out": lambda seen: rolled_out(seen, patches(seen).mean(0)),
        **{f"head {head + 1}": partial(one_head, head=head) for head in range(heads)},
    }


def shares(weights: Tensor) -> Tensor:
    """Return weights divided by their sum over the tokens."""
    return weights / weights.sum(-1, keepdim=True)


def weighed_values(seen: Seen, layer: int) -> Tensor:
    """Return the norm of what each token adds to the query (Kobayashi et al. 2020)."""
    attention = seen.model.head.layers[layer].attention
    values = attention.split(attention.value(seen.embeds))[0]  # (heads, tokens, width / heads)
    outputs = attention.output.weight.unflatten(1, (attention.heads, -1))
    projected = torch.einsum("htd,whd->htw", values, outputs)
    added = torch.einsum("hnt,htw->ntw", seen.layers[layer], projected)
    return added.norm(dim=-1)[:, 1:]


def rolled_out(seen: Seen, weights: Tensor) -> Tensor:
    """Follow the attention through the encoder's last stage (Abnar and Zuidema 2020)."""
    for block in reversed(seen.last_stage):
        weights = (weights + weights @ block.mean(0)) / 2  # half of each token passes by
    return weights


def rolled_out_layers(seen: Seen) -> Tensor:
    """Follow the head's residual stream back through its layers."""
    total = torch.zeros(())
    for layer in seen.layers:
        total = (total + layer.mean(0)[:, 1:]) / 2
    return total


def contrast(seen: Seen) -> Tensor:
    """Return how much the picture varies around each token, blurred over its neighbours."""
    grey = seen.pixels.float().mean(-1)[:, None]
    size, side = grey.shape[-1], seen.model.variant.window_size
    change = (grey - F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False)).abs()
    blurred = F.avg_pool2d(change, size // side) + TINY
    smooth = F.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False) + blurred
    return smooth.flatten(1).expand(len(seen.tags), -1)


def chance(seen: Seen) -> Tensor:
    """Return random numbers."""
    return torch.rand(len(seen.tags), seen.embeds.shape[1] - 1) + TINY


BASELINES: dict[str, Way] = {"the picture's contrast, blurred": contrast, "chance": chance}
