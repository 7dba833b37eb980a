"""RAM and RAM++: an image encoder, a tagging head, and the labels that it knows."""

import torch
from torch import Tensor, nn

from ram_triton.model.descriptions import weigh_descriptions
from ram_triton.model.image_encoder import ImageEncoder
from ram_triton.model.tagging_head import TaggingHead
from ram_triton.model.variant import Variant


class RAM(nn.Module):
    """The Recognize Anything Model (Zhang et al. 2023), as far as tagging goes.

    With more than one description a tag it is RAM++ (Huang et al. 2023), whose `label_embed` has a
    row for each description, a tag's one after the other.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.encoder = ImageEncoder(variant)
        self.head = TaggingHead(variant)
        rows = variant.num_tags * variant.descriptions
        self.label_embed = nn.Parameter(torch.zeros(rows, variant.label_width))
        if variant.descriptions > 1:
            self.reweight_scale = nn.Parameter(torch.zeros(()))  # a logarithm

    def forward(self, pixels: Tensor) -> Tensor:
        """Score the known labels: (batch, size, size, 3) uint8 to (batch, num_tags) logits."""
        return self.score(self.encoder(pixels))

    def score(self, image_embeds: Tensor) -> Tensor:
        """Score the known labels: (batch, tokens, image_width) to (batch, num_tags) logits."""
        if self.variant.descriptions == 1:
            return self.head(image_embeds, self.label_embed)
        labels = weigh_descriptions(
            image_embeds[:, 0], self.descriptions(), self.reweight_scale.exp()
        )
        return self.head(image_embeds, labels)

    def descriptions(self) -> Tensor:
        """Return the labels' embeddings, (num_tags, descriptions, label_width)."""
        return self.label_embed.unflatten(0, (self.variant.num_tags, self.variant.descriptions))
