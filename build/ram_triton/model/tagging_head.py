"""Image embeddings to a logit for each label embedding: RAM's recognition decoder."""

import torch.nn.functional as F
from torch import Tensor, nn

from ram_triton.model.variant import Variant

LAYER_NORM_EPSILON = 1e-12


class CrossAttention(nn.Module):
    """Multi-head attention in which labels query the image (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.heads = variant.attention_heads
        self.query = nn.Linear(variant.hidden_size, variant.hidden_size)
        self.key = nn.Linear(variant.image_width, variant.hidden_size)
        self.value = nn.Linear(variant.image_width, variant.hidden_size)
        self.output = nn.Linear(variant.hidden_size, variant.hidden_size)

    def forward(self, projected_queries: Tensor, image_embeds: Tensor) -> Tensor:
        """Gather for each query what it asks of the image.

        Args:
            projected_queries: what `query` made of the queries, (batch or 1, labels, hidden).
            image_embeds: (batch, tokens, image_width).

        Returns:
            (batch, labels, hidden).
        """
        query = self._split(projected_queries)
        key, value = self._split(self.key(image_embeds)), self._split(self.value(image_embeds))
        scale = query.shape[-1] ** -0.5
        weights = ((query * scale) @ key.transpose(-2, -1)).softmax(dim=-1)
        return self.output((weights @ value).transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        """(batch, length, hidden) to (batch, heads, length, hidden / heads)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TaggingLayer(nn.Module):
    """A post-norm BERT layer with cross-attention to the image in place of self-attention."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width, inner = variant.hidden_size, variant.intermediate_size
        self.attention = CrossAttention(variant)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)

    def forward(self, queries: Tensor, image_embeds: Tensor) -> Tensor:
        """Update (batch or 1, labels, hidden) queries; returns (batch, labels, hidden)."""
        return self.update(queries, self.attention.query(queries), image_embeds)

    def update(self, queries: Tensor, projected_queries: Tensor, image_embeds: Tensor) -> Tensor:
        """Do as `forward`, with the queries' own projection given."""
        states = self.attention_norm(self.attention(projected_queries, image_embeds) + queries)
        return self.norm(self.contract(F.gelu(self.expand(states))) + states)


class TaggingHead(nn.Module):
    """Lets each label embedding query the image (Zhang et al. 2023, section 3.2).

    Labels do not attend to each other, so a label's logit does not depend on which other labels
    are asked for.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.label_projection = nn.Linear(variant.label_width, variant.hidden_size)
        self.layers = nn.ModuleList(TaggingLayer(variant) for _ in range(variant.num_layers))
        self.classifier = nn.Linear(variant.hidden_size, 1)

    def project(self, label_embeds: Tensor) -> Tensor:
        """Make the first layer's queries: (labels, width) to (1, labels, hidden), or with a batch.

        The batch, where there is one, is the images': each has label embeddings of its own.
        """
        queries = F.relu(self.label_projection(label_embeds))
        return queries if queries.dim() == 3 else queries.unsqueeze(0)

    def forward(self, image_embeds: Tensor, label_embeds: Tensor) -> Tensor:
        """Score labels.

        Args:
            image_embeds: (batch, tokens, image_width).
            label_embeds: (labels, label_width), or (batch, labels, label_width) if they differ
                from image to image.

        Returns:
            Logits, (batch, labels).
        """
        queries = self.project(label_embeds)
        for layer in self.layers:
            queries = layer(queries, image_embeds)
        return self.classifier(queries).squeeze(-1)
