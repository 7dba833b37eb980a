"""The model as it is trained: RAM, its text parts if there are captions, and the losses."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ram_triton.model.checkpoint import published_name
from ram_triton.model.ram import RAM
from ram_triton.training.losses import (
    CLASSIFICATION,
    DISTILLATION,
    GENERATION,
    TAGGING,
    asymmetric_loss,
    classification_loss,
    distillation_loss,
    generation_loss,
)

if TYPE_CHECKING:  # so that training without captions does not import transformers
    from ram_triton.training.text import TextParts, TextTokens

RARE = -4.0  # the classifier's first logit: most tags are wrong for most images
# Attributes of TrainingModel, as they begin the names of its weights.
RAM_PREFIX, TEXT_PREFIX = "ram.", "text."
CLASSIFIER_PREFIX = "classifier."  # used in training only
# transformers' BERT has it, published RAMs do not; it stays zero, see TextParts.
UNPUBLISHED_SUFFIX = "embeddings.token_type_embeddings.weight"


class Outputs(NamedTuple):
    """What a training step computes.

    Attributes:
        losses: float32 scalars by name (`tagging`, `classification`, `distillation`,
            `generation`), for the losses that are trained and whose inputs were given.
        logits: (batch, num_tags); see `TrainingModel.tag`.
    """

    losses: dict[str, Tensor]
    logits: Tensor


class TrainingModel(nn.Module):
    """RAM with its losses, and with what they need.

    Args:
        ram: the model that is trained; its label embeddings are frozen, as in the paper, so that
            labels outside the vocabulary can be used later.
        text: tag encoder and text decoder, built on `ram.head`; None if there are no captions.
        tagging_loss: a function of logits and targets, such as `asymmetric_loss`.
        objectives: names of losses; tagging trains the tagging head, classification trains a
            linear classifier in its place or beside it.
    """

    def __init__(
        self,
        ram: RAM,
        text: Optional["TextParts"] = None,
        tagging_loss: Callable[[Tensor, Tensor], Tensor] = asymmetric_loss,
        objectives: Collection[str] = (TAGGING,),
    ) -> None:
        super().__init__()
        self.tagging_loss = tagging_loss
        self.trains_head = TAGGING in objectives
        self.ram = ram
        self.text = text
        self.classifier: nn.Linear | None = None
        if CLASSIFICATION in objectives:
            self.classifier = nn.Linear(ram.variant.image_width, ram.variant.num_tags)
            nn.init.zeros_(self.classifier.weight)
            nn.init.constant_(self.classifier.bias, RARE)
        ram.label_embed.requires_grad_(False)

    def forward(
        self,
        pixels: Tensor,
        targets: Tensor,
        image_features: Tensor | None = None,
        text: Optional["TextTokens"] = None,
    ) -> Outputs:
        """Compute the losses that the inputs allow.

        Args:
            pixels: RGB in 0..255, (batch, size, size, 3), uint8 or float.
            targets: 1 if a tag is right, else 0, (batch, num_tags), of any type.
            image_features: a teacher's feature of each image, (batch, image_width); without it
                there is no distillation.
            text: tags and captions of the images; without it there is no generation.

        Raises:
            ValueError: text was given to a model without text parts.
        """
        image_embeds = self.ram.encoder(pixels)
        losses = {}
        if self.classifier is not None:
            logits = self.classifier(image_embeds[:, 0])
            losses[CLASSIFICATION] = classification_loss(logits, targets)
        if self.trains_head:
            logits = self.ram.head(image_embeds, self.ram.label_embed)
            losses[TAGGING] = self.tagging_loss(logits, targets)
        if image_features is not None:
            losses[DISTILLATION] = distillation_loss(image_embeds[:, 0], image_features)
        if text is not None:
            if self.text is None:
                raise ValueError("captions need text parts, and this model was built without them")
            predicted = self.text(image_embeds, text)
            losses[GENERATION] = generation_loss(predicted, text.caption_ids, text.ignored)
        return Outputs(losses, logits)

    def tag(self, pixels: Tensor) -> Tensor:
        """Score the tags by the tagging head, or by the classifier if no head is trained.

        Args:
            pixels: RGB in 0..255, (batch, size, size, 3), uint8 or float.

        Returns:
            Logits, (batch, num_tags).
        """
        if self.classifier is None or self.trains_head:
            logits: Tensor = self.ram(pixels)
        else:
            logits = self.classifier(self.ram.encoder(pixels)[:, 0])
        return logits


def published_state_dict(model: TrainingModel) -> dict[str, Tensor]:
    """Return the weights in the published format: RAM's, and those of the text parts, if any.

    The tensors are copies, which further training does not change. Shared weights are copied once
    per name, as `.safetensors` files need it.
    """
    published = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(CLASSIFIER_PREFIX) or name.endswith(UNPUBLISHED_SUFFIX):
            continue
        if name.startswith(RAM_PREFIX):
            name = published_name(name.removeprefix(RAM_PREFIX))
        copied = tensor.detach().clone(memory_format=torch.contiguous_format)
        published[name.removeprefix(TEXT_PREFIX)] = copied
    return published
