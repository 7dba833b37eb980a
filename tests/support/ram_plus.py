"""A tiny RAM++: the golden RAM's weights with 51 descriptions of each tag."""

import torch
from torch import Tensor

from support.golden_checkpoint import golden_weights

DESCRIPTIONS = 51
NUM_TAGS = 40


def plus_weights() -> dict[str, Tensor]:
    """Return the state dict, named as published checkpoints are."""
    weights = golden_weights()
    width = weights["label_embed"].shape[1]
    generator = torch.Generator().manual_seed(51)
    weights["label_embed"] = torch.randn(NUM_TAGS * DESCRIPTIONS, width, generator=generator)
    # A factor of 2: some descriptions weigh much more than others, none has all the weight.
    weights["reweight_scale"] = torch.tensor(2.0).log()
    return weights


def direct_labels(mean_embed: Tensor, label_embed: Tensor, reweight_scale: Tensor) -> Tensor:
    """Weigh descriptions as the definition reads, by (batch, tags, descriptions, width) products.

    Args:
        mean_embed: (batch, width).
        label_embed: (tags · descriptions, width).
        reweight_scale: logarithm of the temperature's inverse.

    Returns:
        Label embeddings of each image, (batch, tags, width).
    """
    descriptions = label_embed.unflatten(0, (-1, DESCRIPTIONS))[None]
    unit = mean_embed / mean_embed.square().sum(-1, keepdim=True).sqrt()
    likeness = (unit[:, None, None, :] * descriptions).sum(-1)
    powers = (reweight_scale.exp() * likeness).exp()
    weights = powers / powers.sum(-1, keepdim=True)
    return (weights[..., None] * descriptions).sum(2)
