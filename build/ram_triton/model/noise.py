"""Deterministic noise in place of trained weights: for trying sizes and the pipeline itself."""

import math
import zlib

import torch

from ram_triton.model.checkpoint import published_name
from ram_triton.model.ram import RAM
from ram_triton.model.variant import BACKBONES, Variant

# Scales the logits up, so that scores spread over 0 to 1.
CLASSIFIER_GAIN = 6.0


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


def random_model(variant: Variant) -> RAM:
    """Return a RAM whose tensors are noise, each seeded with the CRC-32 of its published name."""
    model = RAM.uninitialised(variant).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            seed = zlib.crc32(published_name(name).encode())
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
            tensor.copy_(_scaled(name, noise))
    return model


def _scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Give noise the size that keeps activations of about 1 from layer to layer."""
    if noise.dim() < 2:
        return 0.1 * noise + (1 if name.endswith("weight") else 0)
    if name == "label_embed":
        return noise
    gain = CLASSIFIER_GAIN if name == "head.classifier.weight" else 1
    return noise * gain / math.sqrt(math.prod(noise.shape[1:]))
