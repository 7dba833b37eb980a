"""The model as it is trained: RAM, its text parts where there are captions, and the losses."""

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

RARE = -4.0  # the classifier's first logit: most tags are wrong of most images
# Attributes of TrainingModel, as they begin the names of its weights.
RAM_PREFIX, TEXT_PREFIX = "ram.", "text."
# What transformers' BERT has and published RAMs do not: it stays zero, see TextParts.
CLASSIFIER_PREFIX = "classifier."  # which serves training alone
UNPUBLISHED_SUFFIX = "embeddings.token_type_embeddings.weight"


class Outputs(NamedTuple):
    """What a training step sees.

    Attributes:
        losses: float32 scalars by name (`tagging`, `classification`, `distillation`,
            `generation`), of those losses that were asked for and whose inputs were given.
        logits: (batch, num_tags); see `TrainingModel.tag`.
    """

    losses: dict[str, Tensor]
    logits: Tensor


class TrainingModel(nn.Module):
    """RAM with what trains it.

    Args:
        ram: the model that is trained; its label embeddings are frozen, as the paper has it, so
            that labels outside the vocabulary can be asked for later.
        text: tag encoder and text decoder, built on `ram.head`; None where there are no captions.
        tagging_loss: of logits and targets; `asymmetric_loss`, with other settings if need be.
        objectives: names of the losses of the tags: tagging, which trains the tagging head, and
            classification, which trains a linear classifier in its place or beside it.
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
        self.classifier = None
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
            targets: 1 where a tag is right, else 0, (batch, num_tags), of any type.
            image_features: a teacher's feature of each image, (batch, image_width); without it
                there is no distillation.
            text: tags and captions of the images; without it there is no generation.

        Raises:
            ValueError: text was given to a model without text parts.
        """
        if text is not None and self.text is None:
            raise ValueError("captions need the text parts, and this model was built without them")
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
            expected = self.text(image_embeds, text)
            losses[GENERATION] = generation_loss(expected, text.caption_ids, text.ignored)
        return Outputs(losses, logits)

    def tag(self, pixels: Tensor) -> Tensor:
        """Score the tags by the tagging head, or by the classifier where no head is trained.

        Args:
            pixels: RGB in 0..255, (batch, size, size, 3), uint8 or float.

        Returns:
            Logits, (batch, num_tags).
        """
        if self.trains_head:
            return self.ram(pixels)
        return self.classifier(self.ram.encoder(pixels)[:, 0])


def published_names(model: TrainingModel) -> dict[str, str]:
    """Return what published checkpoints call each weight of the model's state dict, by its name."""
    names = {}
    for name in model.state_dict():
        if name.startswith(RAM_PREFIX):
            names[name] = published_name(name.removeprefix(RAM_PREFIX))
        elif not (name.endswith(UNPUBLISHED_SUFFIX) or name.startswith(CLASSIFIER_PREFIX)):
            names[name] = name.removeprefix(TEXT_PREFIX)
    return names


def published_state_dict(model: TrainingModel) -> dict[str, Tensor]:
    """Return the weights in the published format: RAM's, and those of the text parts, if any.

    The tensors are copies: a snapshot that further training does not change, and in which shared
    weights stand once under each of their names, as `.safetensors` files need it.
    """
    weights = model.state_dict()
    return {
        published: weights[name].detach().clone(memory_format=torch.contiguous_format)
        for name, published in published_names(model).items()
    }
