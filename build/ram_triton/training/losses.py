"""The three losses that RAM is trained with (Zhang et al. 2023, "Recognize Anything", section 3).

A fourth, classification, is not the paper's: it pre-trains a small image encoder from scratch.

Each takes any floating type, computes in float32 and returns a float32 scalar: under autocast,
half precision would lose the small terms of a sum over thousands of tags.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

TAGGING, DISTILLATION, GENERATION = "tagging", "distillation", "generation"
CLASSIFICATION = "classification"
LABEL_SMOOTHING = 0.1  # of captions' tokens, as BLIP's decoder (Li et al. 2022) and RAM's have it
IGNORED_INDEX = -100  # what cross_entropy leaves out
SMALLEST_PROBABILITY = 1e-8  # keeps the logarithm finite if `clip` is 0


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_negative: float = 7,
    gamma_positive: float = 0,
    clip: float = 0.05,
) -> Tensor:
    """Tagging: the asymmetric loss (Ridnik et al. 2021, section 2.4 "ASL Definition").

    With p = sigmoid(logit), and p_m = max(p - m, 0) the probability shifted by the margin m::

        L = -y · (1 - p)^γ₊ · log(p) - (1 - y) · p_m^γ₋ · log(1 - p_m)

    Easy negatives (p < m) then cost nothing; of the others, easier ones cost less. As in RAM's
    reference, the focusing weights (1 - p)^γ₊ and p_m^γ₋ have no gradient.

    The reference sums over tags and images. Here it is the sum over tags and the mean over images,
    which differs by the factor 1/batch: clipping of gradients and the sum with the other losses
    then do not depend on the batch's size.

    timm's AsymmetricLossMultiLabel equals this one as long as every probability is above 1e-8. It
    clamps smaller ones, so that a positive with a logit below -18 learns nothing.

    Args:
        logits: (batch, tags).
        targets: 1 if the tag is right, 0 if it is not, (batch, tags), of a floating type.
        gamma_negative: γ₋, how much less easy negatives count.
        gamma_positive: γ₊, how much less easy positives count.
        clip: the margin m.

    Returns:
        The loss, a float32 scalar.
    """
    logits, targets = logits.float(), targets.float()
    rejected = (torch.sigmoid(-logits) + clip).clamp(SMALLEST_PROBABILITY, 1)  # 1 - p_m
    with torch.no_grad():
        positive_weight = torch.sigmoid(-logits) ** gamma_positive
        negative_weight = (1 - rejected) ** gamma_negative
    positive = targets * positive_weight * F.logsigmoid(logits)
    negative = (1 - targets) * negative_weight * rejected.log()
    return -(positive + negative).sum(dim=1).mean()


def distillation_loss(mean_embed: Tensor, image_feature: Tensor) -> Tensor:
    """Distillation: the mean absolute difference of the mean token and CLIP's image feature.

    Args:
        mean_embed: the mean token's embedding, (batch, image_width).
        image_feature: CLIP's (or another teacher's) feature of the same image, of the same shape;
            a row of NaN means that there is none.

    Returns:
        The loss, a float32 scalar: the mean over images that have a feature, 0 where none has.
    """
    present = ~image_feature.isnan().any(dim=1)
    total = F.l1_loss(mean_embed[present].float(), image_feature[present].float(), reduction="sum")
    return total / (present.sum() * mean_embed.shape[1]).clamp(min=1)


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Classification: binary cross entropy of a linear classifier on the mean token's embedding.

    RAM starts from a trained Swin Transformer. Without one its tagging head learns almost nothing,
    because the image encoder knows nothing yet; a linear classifier does learn, and trains it.

    Args:
        logits: the classifier's, (batch, tags).
        targets: 1 if the tag is right, 0 if it is not, (batch, tags), of a floating type.

    Returns:
        The loss, a float32 scalar: the sum over tags, the mean over images, as for tagging.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")
    return total / len(logits)


def generation_loss(logits: Tensor, token_ids: Tensor, ignored: Tensor) -> Tensor:
    """Image-tag-text generation: the decoder's surprise at each next token of the caption.

    Cross entropy of token t + 1 under the logits at t, labels smoothed (Szegedy et al. 2016,
    section 7), the mean over all scored tokens of the batch.

    Args:
        logits: the decoder's prediction after each token, (batch, tokens, vocabulary).
        token_ids: the caption's tokens, (batch, tokens), int64.
        ignored: True where a token is not scored (prompt and padding), (batch, tokens), bool.

    Returns:
        The loss, a float32 scalar; 0 where no token is scored.
    """
    following = token_ids.masked_fill(ignored, IGNORED_INDEX)[:, 1:]
    total = F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1),
        following.flatten(),
        ignore_index=IGNORED_INDEX,
        label_smoothing=LABEL_SMOOTHING,
        reduction="sum",
    )
    return total / (following != IGNORED_INDEX).sum().clamp(min=1)


def total_loss(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Add up the weighted losses that are there, a float32 scalar.

    As in RAM's reference, tagging is scaled (without gradient) to the size of generation if both
    are trained; otherwise the sum over thousands of tags would outweigh the caption.
    """
    total = reduce(add, (weights[name] * loss for name, loss in losses.items()))
    if TAGGING in losses and GENERATION in losses:
        tagging, generation = losses[TAGGING].detach(), losses[GENERATION].detach()
        scale = generation / tagging.clamp(min=SMALLEST_PROBABILITY)
        scale = torch.where(generation > 0, scale, 1)  # 0 if no token was scored
        total = total + weights[TAGGING] * (scale - 1) * losses[TAGGING]
    return total
