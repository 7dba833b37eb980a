"""RAM++: a tag has many descriptions, and each image weighs them anew."""

from torch import Tensor


def weigh_descriptions(mean_embed: Tensor, descriptions: Tensor, scale: Tensor) -> Tensor:
    """Make one embedding of each label out of its descriptions (Huang et al. 2023, section 3.3).

    A description weighs the more the liker it is to the image. Both products go label by label,
    so that nothing is ever as large as (batch, labels, descriptions, width).

    Args:
        mean_embed: embedding of each image's mean token, (batch, width).
        descriptions: embeddings as stored, not normalised, (labels, descriptions, width).
        scale: what likeness is multiplied with before the softmax, a scalar.

    Returns:
        (batch, labels, width).
    """
    direction = mean_embed / mean_embed.norm(dim=-1, keepdim=True) * scale
    weights = (descriptions @ direction.t()).softmax(dim=1)  # (labels, descriptions, batch)
    return (weights.transpose(1, 2) @ descriptions).transpose(0, 1)
