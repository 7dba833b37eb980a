"""RAM and RAM++ in PyTorch, all of the network in one file: pixels to a logit per label.

pixels → ImageEncoder → image embeddings → TaggingHead → logits
                                              ↑
label embeddings (RAM++: weighed per image by weigh_descriptions)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# timm imports torchvision, whose wheel does not load beside a CPU build of torch unless these
# operators of its compiled part are at least declared. If that part loads, it declares them.
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for _name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

from timm.models.swin_transformer import SwinTransformer as SwinTransformer
from timm.models.swin_transformer import WindowAttention as WindowAttention

from ram_triton.model.variant import PATCH_SIZE, Variant

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYER_NORM_EPSILON = 1e-12


class RAM(nn.Module):
    """The Recognize Anything Model (Zhang et al. 2023), as far as tagging needs it.

    With more than one description per tag it is RAM++ (Huang et al. 2023), whose `label_embed` has
    one row per description, all of a tag's in succession.
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

    @classmethod
    def uninitialised(cls, variant: Variant) -> "RAM":
        """Return a model whose weights are to be set: spares the time of random ones."""
        with torch.device("meta"):
            model = cls(variant)
        model.to_empty(device="cpu")
        for module in model.modules():
            # timm's modules have it, and ImageEncoder.
            if callable(fill := getattr(module, "init_non_persistent_buffers", None)):
                fill()
        return model

    def forward(self, pixels: Tensor) -> Tensor:
        """Score the known labels: (batch, size, size, 3) uint8 to (batch, num_tags) logits."""
        return self.score(self.encoder(pixels))

    def score(self, image_embeds: Tensor) -> Tensor:
        """Score the known labels: (batch, tokens, image_width) to (batch, num_tags) logits."""
        labels: Tensor = self.label_embed
        if self.variant.descriptions > 1:
            labels = weigh_descriptions(
                image_embeds[:, 0], self.descriptions(), self.reweight_scale.exp()
            )
        logits: Tensor = self.head(image_embeds, labels)
        return logits

    def descriptions(self) -> Tensor:
        """Return the labels' embeddings, (num_tags, descriptions, label_width)."""
        variant = self.variant
        return self.label_embed.view(variant.num_tags, variant.descriptions, variant.label_width)


class ImageEncoder(nn.Module):
    """A Swin Transformer whose tokens, and their mean before them, are projected."""

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.swin = SwinTransformer(
            img_size=variant.image_size,
            patch_size=PATCH_SIZE,
            window_size=variant.window_size,
            embed_dim=variant.embed_dim,
            depths=variant.depths,
            num_heads=variant.num_heads,
            num_classes=0,
            global_pool="",
        )
        self.projection = nn.Linear(self.swin.num_features, variant.image_width)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Compute what checkpoints do not contain; timm's modules have a method like this."""
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch of images.

        Args:
            pixels: RGB in 0..255, (batch, size, size, 3), uint8 or float.

        Returns:
            Image embeddings, (batch, 1 + tokens, image_width): first that of the mean token,
            then one per token of the Swin's last stage, row by row.
        """
        normalised = pixels.to(self.pixel_scale.dtype) * self.pixel_scale + self.pixel_shift
        tokens = self.swin.forward_features(normalised.permute(0, 3, 1, 2)).flatten(1, 2)
        embeds: Tensor = self.projection(
            torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        )
        return embeds


class TaggingHead(nn.Module):
    """RAM's recognition decoder: each label embedding queries the image (Zhang et al. 2023, 3.2).

    Labels do not attend to each other, so a label's logit does not depend on which other labels
    are scored with it.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.label_projection = nn.Linear(variant.label_width, variant.hidden_size)
        self.layers = nn.ModuleList(TaggingLayer(variant) for _ in range(variant.num_layers))
        self.classifier = nn.Linear(variant.hidden_size, 1)

    def project(self, label_embeds: Tensor) -> Tensor:
        """Make the first layer's queries: (labels, width) to (1, labels, hidden), or with a batch.

        The batch, if there is one, is that of the images: each has its own label embeddings.
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
        logits: Tensor = self.classifier(queries)
        return logits.squeeze(-1)


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
        """Do as `forward`, given the queries' own projection."""
        states = self.attention_norm(self.attention(projected_queries, image_embeds) + queries)
        updated: Tensor = self.norm(self.contract(F.gelu(self.expand(states))) + states)
        return updated


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
        weights, value = self.weigh(projected_queries, image_embeds), self.value(image_embeds)
        gathered = (weights @ self.split(value)).transpose(1, 2).flatten(2)
        projected: Tensor = self.output(gathered)
        return projected

    def weigh(self, projected_queries: Tensor, image_embeds: Tensor) -> Tensor:
        """Return how much of each token each query gathers, (batch, heads, labels, tokens).

        Args:
            projected_queries: as for `forward`.
            image_embeds: as for `forward`.
        """
        query, key = self.split(projected_queries), self.split(self.key(image_embeds))
        scale = query.shape[-1] ** -0.5
        weights: Tensor = ((query * scale) @ key.transpose(-2, -1)).softmax(dim=-1)
        return weights

    def split(self, states: Tensor) -> Tensor:
        """(batch, length, hidden) to (batch, heads, length, hidden / heads)."""
        batch, length, width = states.shape
        return states.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


def weigh_descriptions(mean_embed: Tensor, descriptions: Tensor, scale: Tensor) -> Tensor:
    """Make one embedding of each label's descriptions, as RAM++ does (Huang et al. 2023, 3.3).

    The more similar a description is to the image, the higher its weight. Both products go label
    by label, so that nothing is ever as large as (batch, labels, descriptions, width).

    Args:
        mean_embed: embedding of each image's mean token, (batch, width).
        descriptions: embeddings as stored, not normalised, (labels, descriptions, width).
        scale: multiplies the similarities before the softmax, a scalar.

    Returns:
        (batch, labels, width).
    """
    direction = mean_embed / mean_embed.norm(dim=-1, keepdim=True) * scale
    weights = (descriptions @ direction.t()).softmax(dim=1)  # (labels, descriptions, batch)
    labels: Tensor = weights.transpose(1, 2) @ descriptions
    return labels.transpose(0, 1)
