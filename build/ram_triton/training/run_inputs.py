"""A configuration made into what a run needs: samples, features, and the model it starts from."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from torch import Tensor

from ram_triton.errors import CheckpointError, ConfigError, VariantError, VocabularyError
from ram_triton.model.checkpoint import published_name
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant, detect_variant
from ram_triton.training.config import Config, Data, Model
from ram_triton.training.fingerprint import fingerprint_of
from ram_triton.training.losses import (
    CLASSIFICATION,
    DISTILLATION,
    GENERATION,
    TAGGING,
    asymmetric_loss,
)
from ram_triton.training.manifest import Sample, read_samples
from ram_triton.training.model import TrainingModel
from ram_triton.training.starting_weights import from_ram, from_scratch, from_swin, load_text
from ram_triton.vocabulary.tag_lists import ENGLISH, read_vocabulary

if TYPE_CHECKING:
    from ram_triton.training.text import TextParts, Tokenizer

IMAGE_SIZE = 224  # where neither settings nor a checkpoint tell another

Say = Callable[[str], None]


@dataclass
class Setup:
    """What a run needs.

    Attributes:
        tags: English names, in the vocabulary's order.
        training, validation: the splits' samples.
        label_embeddings: float32 (tags, label_width).
        features: see `Data.features`; None where there are none.
        losses: weight of each loss whose input is there.
        tokenizer: of captions; None where they train nothing.
        fingerprint: of what decides the outcome.
    """

    tags: list[str]
    training: list[Sample]
    validation: list[Sample]
    label_embeddings: Tensor
    features: np.ndarray | None
    losses: dict[str, float]
    tokenizer: Optional["Tokenizer"]
    fingerprint: str


def prepare(config: Config, say: Say) -> Setup:
    """Read and check all that a run needs, and say which losses it has.

    Raises:
        ConfigError, VocabularyError, ManifestError: something is wrong; the message says what.
    """
    data = config.data
    tags, tags_zh = read_tags(data.vocabulary)
    samples = read_samples(data, tags, tags_zh)
    training = [one for one in samples if one.split in (None, data.training_split)]
    validation = [one for one in samples if one.split == data.validation_split]
    if not training:
        place = data.manifest or data.folder
        raise ConfigError(f"{place}: no image is of the split '{data.training_split}'")
    labels = _read_labels(data, len(tags))
    features = _read_features(data, max(one.line for one in samples) + 1)
    losses = _choose_losses(config, training, features, say)
    tokenizer = _make_tokenizer(config) if GENERATION in losses else None
    splits = Counter(one.split or "no split" for one in samples)
    say(f"data: {', '.join(f'{count} {name}' for name, count in splits.items())}")
    fingerprint = fingerprint_of(config, tags, training, labels, features)
    return Setup(tags, training, validation, labels, features, losses, tokenizer, fingerprint)


def read_tags(folder: Path) -> tuple[list[str], list[str]]:
    """Read a vocabulary's English and Chinese names.

    Raises:
        VocabularyError: a list is missing or wrong.
    """
    try:
        count = len((folder / ENGLISH).read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise VocabularyError(f"{folder / ENGLISH}: {error.strerror}") from error
    vocabulary = read_vocabulary(folder, count)
    return list(vocabulary.tags), list(vocabulary.tags_zh)


def make_model(config: Config, setup: Setup, say: Say) -> TrainingModel:
    """Make the model that training starts from; chance comes from torch's global generator.

    Raises:
        ConfigError, CheckpointError: the sizes or the weights to start from cannot be used.
    """
    sizes, labels = config.model, setup.label_embeddings
    try:
        if sizes.start is not None:
            ram = from_ram(sizes.start, labels, sizes.image_size, say)
        elif sizes.swin is not None:
            ram = from_swin(sizes.swin, _variant(sizes, labels), labels, say)
        else:
            ram = from_scratch(_variant(sizes, labels), labels)
    except CheckpointError:
        raise
    except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"model: no such RAM can be made ({error})") from error
    _require_readable(ram)
    width = ram.variant.image_width
    if DISTILLATION in setup.losses and setup.features.shape[1] != width:
        raise ConfigError(
            f"data: the features are {setup.features.shape[1]} wide, the model's {width}"
        )
    tagging_loss = partial(asymmetric_loss, **asdict(config.asymmetry))
    text = _make_text(config, setup, ram, say)
    return TrainingModel(ram, text, tagging_loss, setup.losses)


def _require_readable(ram: RAM) -> None:
    """Refuse what could be trained, but not be read from its checkpoint again as what it is."""
    variant = ram.variant
    heads = variant.attention_heads
    if variant.hidden_size % heads:
        raise ConfigError(f"model: hidden_size {variant.hidden_size} is no multiple of {heads}")
    shapes = {published_name(name): tuple(t.shape) for name, t in ram.state_dict().items()}
    try:
        found = detect_variant(shapes)
    except VariantError as error:
        raise ConfigError(f"model: no RAM has these sizes ({error})") from error
    for name, wanted in asdict(variant).items():
        if getattr(found, name) != wanted:
            raise ConfigError(
                f"model: a checkpoint of {name} {wanted} would be read as one of "
                f"{getattr(found, name)}; choose other sizes"
            )


def _variant(sizes: Model, labels: Tensor) -> Variant:
    """Return the sizes of a RAM that no RAM checkpoint gives."""
    return Variant(
        image_size=sizes.image_size or IMAGE_SIZE,
        embed_dim=sizes.embed_dim,
        depths=sizes.depths,
        num_heads=sizes.num_heads,
        image_width=sizes.image_width,
        label_width=labels.shape[1],
        num_tags=len(labels),
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        intermediate_size=sizes.intermediate_size,
    )


def _make_text(config: Config, setup: Setup, ram: RAM, say: Say) -> Optional["TextParts"]:
    """Make tag encoder and text decoder, where captions train them."""
    if GENERATION not in setup.losses:
        return None
    from ram_triton.errors import TextError
    from ram_triton.training.text import TextParts, TextSizes

    sizes = TextSizes(len(setup.tokenizer), config.text.layers, config.text.heads)
    try:
        text = TextParts(ram.variant, sizes, ram.head)
    except (TextError, ValueError) as error:
        raise ConfigError(f"text: no such text parts can be made ({error})") from error
    if config.model.start is not None:
        load_text(text, config.model.start, say)
    return text


def _make_tokenizer(config: Config) -> "Tokenizer":
    from ram_triton.errors import TextError
    from ram_triton.training.text import Tokenizer

    try:
        return Tokenizer(config.text.vocabulary)
    except TextError as error:
        raise ConfigError(f"text: {error}") from error


def _read_labels(data: Data, num_tags: int) -> Tensor:
    if data.label_embeddings is None:
        raise ConfigError("data: the setting 'label_embeddings' is missing")
    labels = _load(data.label_embeddings)
    if labels.ndim != 2 or len(labels) != num_tags:
        raise ConfigError(
            f"{data.label_embeddings}: shape {labels.shape}, but there are {num_tags} tags"
        )
    labels = np.array(labels, np.float32)
    if not np.isfinite(labels).all():
        raise ConfigError(f"{data.label_embeddings}: holds something else than finite numbers")
    return torch.from_numpy(labels)


def _read_features(data: Data, lines: int) -> np.ndarray | None:
    if data.features is None:
        return None
    features = _load(data.features)
    if features.ndim != 2 or len(features) < lines:
        raise ConfigError(f"{data.features}: shape {features.shape}, for {lines} lines of manifest")
    return features


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path}: is no array ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ConfigError(f"{path}: is no array of numbers")
    return array


def _choose_losses(
    config: Config, training: list[Sample], features: np.ndarray | None, say: Say
) -> dict[str, float]:
    """Leave out each loss whose input is absent, and say so."""
    reasons = {
        TAGGING: None,
        CLASSIFICATION: None,
        DISTILLATION: "the data has no image features" if features is None else None,
        GENERATION: None if any(s.caption for s in training) else "the data has no captions",
    }
    if reasons[GENERATION] is None and config.text.vocabulary is None:
        reasons[GENERATION] = "no vocabulary for text is given"
    chosen = {}
    for name, reason in reasons.items():
        weight = config.losses.get(name, 0.0)
        if weight == 0:
            reason = "its weight is 0"
        say(f"loss {name}: " + (f"left out, {reason}" if reason else f"weight {weight:g}"))
        if reason is None:
            chosen[name] = weight
    return chosen
