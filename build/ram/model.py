"""RAM: an image encoder, a tagging head, and the labels that it knows."""

import torch
from torch import Tensor, nn

from .image_encoder import ImageEncoder
from .tagging_head import TaggingHead
from .variant import Variant


class RAM(nn.Module):
    """The Recognize Anything Model (Zhang et al. 2023), as far as tagging goes."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.encoder = ImageEncoder(variant)
        self.head = TaggingHead(variant)
        self.label_embed = nn.Parameter(torch.zeros(variant.num_tags, variant.label_width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Score the known labels: (batch, size, size, 3) uint8 to (batch, num_tags) logits."""
        return self.head(self.encoder(pixels), self.label_embed)
