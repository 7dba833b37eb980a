"""A model as a function of pixels: in PyTorch, or as an encoder and a head that an engine runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # commands import this file before anything that takes seconds
    from ram_triton.model.ram import RAM

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]  # (B, size, size, 3)
Logits = npt.NDArray[np.float32]  # (B, tags)
Tagger = Callable[[Pixels], Logits]
Graph = Callable[..., dict[str, Array]]  # called with its inputs by name; returns its outputs
T = TypeVar("T")


def chain(
    encoder: Callable[..., Mapping[str, T]], second: Callable[..., Mapping[str, T]], **given: T
) -> Callable[..., T]:
    """Return an encoder, and a head or heat maps, as one function of pixels.

    Args:
        encoder: the encoder.
        second: takes its image embeddings, and has one output.
        given: inputs of the second that are always the same, by name.

    Returns:
        A function of pixels, with the second's other inputs by name: heat maps take `tag_ids`.
        It returns logits (B, tags), or heat maps (B, M, side, side).
    """

    def run(pixels: T, **chosen: T) -> T:
        image_embeds = encoder(pixels=pixels)["image_embeds"]
        (output,) = second(image_embeds=image_embeds, **chosen, **given).values()
        return output

    return run


def tag_all(tagger: Tagger, batches: Iterable[Pixels]) -> Logits:
    """Tag all batches; returns their logits, (images, tags) float32, in order."""
    return np.concatenate([tagger(pixels) for pixels in batches])


def torch_tagger(model: "RAM", device: str = "cpu") -> Tagger:
    """Return the model, moved to `cpu` or `cuda`, as a function of pixels."""
    import torch

    model = model.to(device)

    def tag(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(pixels).to(device)).cpu().numpy()
        return logits

    return tag


def torch_answers(
    model: "RAM", batches: Iterable[Pixels], choose: Callable[[Logits], Array]
) -> tuple[Logits, Array, Array]:
    """Compute logits and heat maps of all batches in PyTorch.

    Args:
        model: the model.
        batches: of pixels.
        choose: makes the ids of the tags that are mapped, (B, M), of logits (B, tags).

    Returns:
        Logits, tag ids, and their heat maps (images, M, side, side), in order.
    """
    import torch

    from ram_triton.model.maps import KnownMaps

    make_maps, answers = KnownMaps(model), []
    with torch.inference_mode():
        for pixels in batches:
            image_embeds = model.encoder(torch.from_numpy(pixels))
            logits = model.score(image_embeds).numpy()
            tag_ids = choose(logits)
            maps = make_maps(image_embeds, torch.from_numpy(tag_ids)).numpy()
            answers.append((logits, tag_ids, maps))
    logits, tag_ids, maps = map(np.concatenate, zip(*answers, strict=True))
    return logits, tag_ids, maps
