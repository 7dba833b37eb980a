"""What a training run needs, made from its configuration: samples, features, losses, a model."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ram_triton.errors import ConfigError, RamTritonError, VariantError
from ram_triton.model.checkpoint import published_name
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant, detect_variant
from ram_triton.model.weight_files import digest
from ram_triton.training.config import Config, Data, Model
from ram_triton.training.losses import DISTILLATION, GENERATION, asymmetric_loss
from ram_triton.training.manifest import Sample, map_array, read_samples
from ram_triton.training.model import TrainingModel
from ram_triton.training.starting_weights import (
    Log,
    from_ram,
    from_scratch,
    from_swin,
    load_text,
)
from ram_triton.vocabulary.tag_lists import read_vocabulary

if TYPE_CHECKING:
    from ram_triton.training.text import TextParts, Tokenizer

IMAGE_SIZE = 224  # if neither the settings nor a checkpoint specify it
# Settings that do not change the outcome; the data counts by its contents.
OUTCOME_INDEPENDENT = {"output", "data", "reports", "device", "threads"}


@dataclass
class RunInputs:
    """What a run needs.

    Attributes:
        tags: English names, in the vocabulary's order.
        training, validation: the splits' samples.
        label_embeddings: float32 (tags, label_width).
        features: see `Data.features`; None if there are none.
        losses: weight of each loss whose input is there.
        tokenizer: of captions; None if they train nothing.
        fingerprint: of what decides the outcome.
    """

    tags: list[str]
    training: list[Sample]
    validation: list[Sample]
    label_embeddings: Tensor
    features: NDArray[Any] | None
    losses: dict[str, float]
    tokenizer: Optional["Tokenizer"]
    fingerprint: str


def read_inputs(config: Config, log: Log) -> RunInputs:
    """Read and check all that a run needs, and log which losses it has.

    Raises:
        ConfigError, VocabularyError, ManifestError, TextError: something cannot be used.
        OSError: a file cannot be read.
    """
    data = config.data
    vocabulary = read_vocabulary(data.vocabulary)
    tags = list(vocabulary.tags)
    samples = read_samples(data, tags, vocabulary.tags_zh, log)
    training = [one for one in samples if one.split in (None, data.training_split)]
    validation = [one for one in samples if one.split == data.validation_split]
    if not training:
        place = data.manifest or data.folder
        raise ConfigError(f"{place}: the split '{data.training_split}' has no images")
    labels = _read_labels(data, len(tags))
    features = _read_features(data, max(one.line for one in samples) + 1)
    losses = _choose_losses(config, training, features, log)
    tokenizer = None
    if GENERATION in losses and config.text.vocabulary is not None:
        from ram_triton.training.text import Tokenizer

        tokenizer = Tokenizer(config.text.vocabulary)
    splits = Counter(one.split or "no split" for one in samples)
    log(f"data: {', '.join(f'{count} {name}' for name, count in splits.items())}")
    fingerprint = _fingerprint(config, tags, training, labels, features)
    return RunInputs(tags, training, validation, labels, features, losses, tokenizer, fingerprint)


def _fingerprint(
    config: Config,
    tags: list[str],
    training: list[Sample],
    labels: Tensor,
    features: NDArray[Any] | None,
) -> str:
    """Return a checksum of what decides a run's outcome, wherever it lies and runs."""
    settings = config.model_dump(exclude=OUTCOME_INDEPENDENT)
    vocabulary = config.text.vocabulary
    for section, name, file in (
        ("model", "start", config.model.start),
        ("model", "swin", config.model.swin),
        ("text", "vocabulary", vocabulary and vocabulary / "vocab.txt"),
    ):
        # What is not there is reported by whatever reads it.
        settings[section][name] = digest(file) if file and file.exists() else None
    base = config.data.manifest.parent if config.data.manifest else config.data.folder
    samples = [
        (
            one.image if isinstance(one.image, int) else os.path.relpath(one.image, base),
            one.tags,
            one.caption,
        )
        for one in training
    ]
    checksum = hashlib.sha256(json.dumps([settings, tags, samples]).encode())
    checksum.update(labels.numpy().tobytes())
    if features is not None:
        checksum.update(features.tobytes())
    return checksum.hexdigest()


def make_model(config: Config, inputs: RunInputs, log: Log) -> TrainingModel:
    """Make the model that training starts from; random weights use torch's global generator.

    Raises:
        ConfigError, CheckpointError: the sizes or the weights to start from cannot be used.
    """
    sizes, labels = config.model, inputs.label_embeddings
    try:
        if sizes.start is not None:
            ram = from_ram(sizes.start, labels, sizes.image_size, log)
        elif sizes.swin is not None:
            ram = from_swin(sizes.swin, _variant(sizes, labels), labels, log)
        else:
            ram = from_scratch(_variant(sizes, labels), labels)
    except (RamTritonError, OSError):
        raise
    except Exception as error:  # timm and torch refuse impossible sizes in many ways
        raise ConfigError(f"model: a RAM cannot have these sizes ({error})") from error
    _require_readable(ram)
    width = ram.variant.image_width
    if DISTILLATION in inputs.losses and inputs.features is not None:
        found = inputs.features.shape[1]
        if found != width:
            raise ConfigError(f"data.features: the features are {found} wide, the model {width}")
    tagging_loss = partial(asymmetric_loss, **config.asymmetry.model_dump())
    text = _make_text(config, inputs, ram, log)
    return TrainingModel(ram, text, tagging_loss, inputs.losses)


def _require_readable(ram: RAM) -> None:
    """Refuse a model that could be trained, but whose checkpoint would be read as another one."""
    variant = ram.variant
    heads = variant.attention_heads
    if variant.hidden_size % heads:
        raise ConfigError(f"model.hidden_size: must be a multiple of {heads}")
    shapes = {published_name(name): tuple(t.shape) for name, t in ram.state_dict().items()}
    try:
        found = detect_variant(shapes)
    except VariantError as error:
        raise ConfigError(f"model: a RAM cannot have these sizes ({error})") from error
    for name, wanted in asdict(variant).items():
        if getattr(found, name) != wanted:
            raise ConfigError(
                f"model.{name}: a checkpoint with {name} {wanted} would be read as one with "
                f"{getattr(found, name)}; choose other sizes"
            )


def _variant(sizes: Model, labels: Tensor) -> Variant:
    """Return the sizes of a RAM that does not start from a RAM checkpoint."""
    settings = sizes.model_dump(exclude={"start", "swin", "image_size"})
    return Variant(
        image_size=sizes.image_size or IMAGE_SIZE,
        label_width=labels.shape[1],
        num_tags=len(labels),
        **settings,
    )


def _make_text(config: Config, inputs: RunInputs, ram: RAM, log: Log) -> Optional["TextParts"]:
    """Make tag encoder and text decoder, if captions train them."""
    if inputs.tokenizer is None:
        return None
    from ram_triton.training.text import TextParts

    sizes = len(inputs.tokenizer), config.text.layers, config.text.heads
    try:
        text = TextParts(ram.variant, ram.head, *sizes)
    except ValueError as error:  # transformers': heads that do not divide the width
        raise ConfigError(f"text: the text parts cannot be made ({error})") from error
    if config.model.start is not None:
        load_text(text, config.model.start, log)
    return text


def _read_labels(data: Data, num_tags: int) -> Tensor:
    if data.label_embeddings is None:
        raise ConfigError("data.label_embeddings: the setting is missing")
    labels = map_array(data.label_embeddings)
    if labels.ndim != 2 or len(labels) != num_tags:
        raise ConfigError(
            f"{data.label_embeddings}: has shape {labels.shape}, but there are {num_tags} tags"
        )
    labels = np.array(labels, np.float32)
    if not np.isfinite(labels).all():
        raise ConfigError(f"{data.label_embeddings}: contains NaN or infinite values")
    return torch.from_numpy(labels)


def _read_features(data: Data, lines: int) -> NDArray[Any] | None:
    if data.features is None:
        return None
    features = map_array(data.features)
    if features.ndim != 2 or len(features) < lines:
        raise ConfigError(
            f"{data.features}: has shape {features.shape}, but there are {lines} lines of manifest"
        )
    return features


def _choose_losses(
    config: Config, training: list[Sample], features: NDArray[Any] | None, log: Log
) -> dict[str, float]:
    """Leave out each loss whose weight is 0 or whose input is absent, and log it."""
    absent = {}
    if features is None:
        absent[DISTILLATION] = "the data has no image features"
    if not any(sample.caption for sample in training):
        absent[GENERATION] = "the data has no captions"
    elif config.text.vocabulary is None:
        absent[GENERATION] = "text.vocabulary is not given"
    chosen = {}
    for name, weight in config.losses.model_dump().items():
        reason = "its weight is 0" if weight == 0 else absent.get(name)
        log(f"loss {name}: " + (f"left out, {reason}" if reason else f"weight {weight:g}"))
        if reason is None:
            chosen[name] = weight
    return chosen
