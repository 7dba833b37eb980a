"""Where in a picture the head looks for a tag: its first layer, as far as a map needs it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ram_triton.model.ram import RAM, TaggingLayer


class HeatMaps(nn.Module):
    """Heat maps of labels: the attention of the head's first layer, times the norm of the values.

    Each head's attention over the patches, without the mean token, is multiplied by the norms of
    the values that it gathers, and the heads are added up (after Kobayashi et al. 2020, without the
    output projection). Of the first layer, because its queries need no other layer's result.
    """

    scale: Tensor

    def __init__(self, model: RAM) -> None:
        super().__init__()
        first = model.head.layers[0]
        assert isinstance(first, TaggingLayer)
        self.head, self.attention = model.head, first.attention
        self.side, self.descriptions = model.variant.window_size, model.variant.descriptions
        if self.descriptions > 1:
            with torch.no_grad():
                self.register_buffer("scale", model.reweight_scale.exp())

    def forward(self, image_embeds: Tensor, label_embeds: Tensor, tag_ids: Tensor) -> Tensor:
        """Make the maps of each image's tags.

        Args:
            image_embeds: (batch, 1 + tokens, image_width).
            label_embeds: all descriptions of a label in one row, (labels, descriptions · width).
            tag_ids: rows of `label_embeds` for each image, (batch, tags) of an integer type; -1 is
                padding.

        Returns:
            (batch, tags, side, side), row by row as the picture's patches; each map's sum is 1,
            that of padding is 0.
        """
        labels = F.embedding(tag_ids.clamp(min=0), label_embeds)
        if self.descriptions > 1:
            labels = self._weigh(image_embeds[:, 0], labels)
        query = self.attention.query(self.head.project(labels))
        patches = image_embeds[:, 1:]
        sizes = self.attention.split(self.attention.value(patches)).norm(dim=-1)
        weights = self.attention.weigh(query, patches)  # (batch, heads, tags, tokens)
        maps = (weights * sizes.unsqueeze(2)).sum(dim=1)
        shares = maps / maps.sum(dim=-1, keepdim=True)
        shown: Tensor = shares * (tag_ids >= 0).to(shares.dtype).unsqueeze(-1)
        return shown.view(*tag_ids.shape, self.side, self.side)

    def _weigh(self, mean_embed: Tensor, labels: Tensor) -> Tensor:
        """Do as `weigh_descriptions`, for labels that differ from image to image."""
        descriptions = labels.view(*labels.shape[:2], self.descriptions, -1)
        direction = mean_embed / mean_embed.norm(dim=-1, keepdim=True) * self.scale
        weights = (descriptions @ direction[:, None, :, None]).softmax(dim=2)
        weighed: Tensor = (weights.transpose(2, 3) @ descriptions).squeeze(2)
        return weighed


class KnownMaps(nn.Module):
    """Heat maps of the model's own labels."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        self.maps = HeatMaps(model)
        self.label_embeds = model.descriptions().flatten(1)

    def forward(self, image_embeds: Tensor, tag_ids: Tensor) -> Tensor:
        """Make the maps of each image's tags, as `HeatMaps`."""
        maps: Tensor = self.maps(image_embeds, self.label_embeds, tag_ids)
        return maps
