"""PyTorch: the model as a function of pixels."""

from collections.abc import Callable

import torch

from ram_triton.engines.tagger import Array, Logits, Pixels, Tagger
from ram_triton.model.maps import KnownMaps
from ram_triton.model.ram import RAM


def torch_tagger(model: RAM, device: str = "cpu") -> Tagger:
    """Return the model, moved to `cpu` or `cuda`, as a function of pixels."""
    model = model.to(device)

    def tag(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(pixels).to(device)).cpu().numpy()
        return logits

    return tag


def torch_mapper(
    model: RAM, choose: Callable[[Logits], Array]
) -> Callable[[Pixels], tuple[Logits, Array, Array]]:
    """Return the model as a function of pixels that makes heat maps too.

    Args:
        model: the model.
        choose: makes tag ids (B, M) of logits (B, tags).

    Returns:
        A function that returns logits, tag ids, and their heat maps (B, M, side, side).
    """
    maps = KnownMaps(model)

    def tag(pixels: Pixels) -> tuple[Logits, Array, Array]:
        with torch.inference_mode():
            image_embeds = model.encoder(torch.from_numpy(pixels))
            logits: Logits = model.score(image_embeds).numpy()
            tag_ids = choose(logits)
            return logits, tag_ids, maps(image_embeds, torch.from_numpy(tag_ids)).numpy()

    return tag
