"""What every engine gives: a graph as a function of its inputs, a model as a function of pixels."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]  # (B, size, size, 3)
Logits = npt.NDArray[np.float32]  # (B, tags)
Tagger = Callable[[Pixels], Logits]
Mapper = Callable[[Pixels, Array], Array]  # with tag ids (B, M) to heat maps (B, M, side, side)
Graph = Callable[..., dict[str, Array]]  # called with its inputs by name; returns its outputs


def make_tagger(encoder: Graph, head: Graph, **given: Array) -> Tagger:
    """Return an encoder and a head as one function of pixels.

    Args:
        encoder: the encoder.
        head: the head.
        given: the head's inputs beside the image embeddings, by name.
    """

    def tag(pixels: Pixels) -> Logits:
        image_embeds = encoder(pixels=pixels)["image_embeds"]
        return head(image_embeds=image_embeds, **given)["logits"]

    return tag


def make_mapper(encoder: Graph, maps: Graph, **given: Array) -> Mapper:
    """Return an encoder and a graph of heat maps as one function of pixels and tag ids.

    Args:
        encoder: the encoder.
        maps: the heat maps.
        given: their inputs beside the image embeddings and the tag ids, by name.
    """

    def make_maps(pixels: Pixels, tag_ids: Array) -> Array:
        image_embeds = encoder(pixels=pixels)["image_embeds"]
        return maps(image_embeds=image_embeds, tag_ids=tag_ids, **given)["maps"]

    return make_maps


def tag_all(tagger: Tagger, batches: Iterable[Pixels]) -> Logits:
    """Tag all batches; returns their logits, (images, tags) float32, in order."""
    return np.concatenate([tagger(pixels) for pixels in batches])
