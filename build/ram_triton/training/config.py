"""What a training run is made of, read from a TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from ram_triton.errors import ConfigError
from ram_triton.training.losses import DISTILLATION, GENERATION, TAGGING
from ram_triton.training.ranges import mistakes


@dataclass(frozen=True)
class Data:
    """Where images, tags, captions and features come from.

    Attributes:
        vocabulary: folder with ram_tag_list.txt and ram_tag_list_chinese.txt.
        label_embeddings: .npy, float32 (tags, label_width), in the vocabulary's order.
        manifest: JSONL, a line an image; see `training.manifest`.
        folder: images with a .txt of tags beside each, instead of a manifest. Its subfolders are
            splits: `train`, `validation`, or any other; images directly in it have none.
        images: .npy, uint8 (images, height, width, 3 or 4), where the manifest gives indices.
        features: .npy, floating (manifest lines, image_width): each image's CLIP-like feature;
            a row of NaN stands for none.
        training_split: which of the images to learn from; those without a split too.
        validation_split: which to measure on while training.
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    vocabulary: Path
    label_embeddings: Path | None = None
    manifest: Path | None = None
    folder: Path | None = None
    images: Path | None = None
    features: Path | None = None
    training_split: str = "train"
    validation_split: str = "validation"
    workers: int = 1


@dataclass(frozen=True)
class Model:
    """What is trained: sizes, or weights to start from that have them.

    Attributes:
        start: a RAM checkpoint, whose sizes hold; its label embeddings are replaced.
        swin: weights of a Swin Transformer for the image encoder, in Microsoft's or timm's naming.
        image_size: in pixels; where it is not given, that of `start`, else 224. This and the rest
            as in `ram.variant.Variant`.
        embed_dim, depths, num_heads: of the Swin.
        image_width, hidden_size, num_layers, intermediate_size: of the projection and the head.
    """

    start: Path | None = None
    swin: Path | None = None
    image_size: int | None = None
    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    image_width: int = 512
    hidden_size: int = 768
    num_layers: int = 2
    intermediate_size: int = 3072


@dataclass(frozen=True)
class Text:
    """The tag encoder and the text decoder, which captions train.

    Attributes:
        vocabulary: folder with the vocab.txt of a BERT; without it captions train nothing.
        layers, heads: of each of the two.
    """

    vocabulary: Path | None = None
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class Asymmetry:
    """Of the tagging loss; see `training.losses.asymmetric_loss`. The defaults are RAM's."""

    gamma_negative: float = 7.0
    gamma_positive: float = 0.0
    clip: float = 0.05


@dataclass(frozen=True)
class Augmentation:
    """How pictures are varied; see `training.augment`. The defaults suit photographs.

    Attributes:
        objects: how often one, two, … images share a picture, in any unit.
        scale: smallest and largest side of an image that is alone, as a share of the picture's.
        shift: how far its centre moves at most, as a share of the picture's side.
        rotation: in degrees, at most, to either side.
        flip: how often an image is mirrored.
        colour: strength of changes of hue, saturation, brightness and contrast, 0 to 1.
        backgrounds: how often another background than white is behind transparency.
        noise: largest standard deviation of the noise, of 255.
    """

    objects: tuple[float, ...] = (1.0,)
    scale: tuple[float, ...] = (1.0, 1.5)
    shift: float = 0.1
    rotation: float = 5.0
    flip: float = 0.5
    colour: float = 0.4
    backgrounds: float = 0.5
    noise: float = 4.0


@dataclass(frozen=True)
class Optimisation:
    """AdamW's settings, and how long it goes on.

    Attributes:
        epochs: passes over the images.
        batch_size: pictures a step.
        learning_rate: the highest, after the warm-up.
        encoder_share: of it that the image encoder has: less than 1 where it was trained before.
        final_learning_rate: the cosine's end, as a share of the highest.
        warmup_steps: over which the learning rate grows from 0.
        weight_decay: of matrices; biases, norms and position tables have none.
        gradient_norm: to which gradients are clipped.
        ema: share of the average that each step keeps; 0 turns the average off.
        precision: "bfloat16", "float32", or "auto": bfloat16 where the device is faster with it.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-4
    encoder_share: float = 1.0
    final_learning_rate: float = 0.0
    warmup_steps: int = 500
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    ema: float = 0.999
    precision: str = "auto"


@dataclass(frozen=True)
class Reports:
    """How often a run looks up from its work.

    Attributes:
        checkpoint_seconds: between checkpoints; one is also written at each epoch's end.
        log_steps: between points of the metrics.
        validation_epochs: between looks at the validation split.
    """

    checkpoint_seconds: float = 120.0
    log_steps: int = 20
    validation_epochs: int = 1


@dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
        output: folder for checkpoints, metrics and the trained model.
        device: "cpu", "cuda", or "auto": cuda where there is one.
        threads: of the training process on a CPU; 0 takes one a core. For small models on a
            machine that does other work too, 1 can be faster than 2.
        seed: decides the order, the variations and the first weights.
        losses: weight of each loss by its name; a loss with weight 0 is left out. `classification`
            (by default 0) is for pre-training an encoder; see `training.losses`.
    """

    output: Path
    data: Data
    model: Model = field(default_factory=Model)
    text: Text = field(default_factory=Text)
    asymmetry: Asymmetry = field(default_factory=Asymmetry)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimisation: Optimisation = field(default_factory=Optimisation)
    reports: Reports = field(default_factory=Reports)
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    losses: Mapping[str, float] = field(
        default_factory=lambda: {TAGGING: 1.0, DISTILLATION: 1.0, GENERATION: 1.0}
    )


def read_config(path: Path) -> Config:
    """Read a configuration; relative paths in it start from its own folder.

    Raises:
        ConfigError: no such file, no TOML, an unknown setting, or a value of the wrong type
            or out of its range; see `training.ranges`.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML ({error})") from error
    config = _build(Config, table, str(path), path.resolve().parent)
    for mistake in mistakes(config):
        raise ConfigError(f"{path}: {mistake}")
    return config


def _build(kind: type, table: Any, place: str, base: Path) -> Any:
    """Make a dataclass from a table, section by section."""
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: must be a table")
    hints = get_type_hints(kind)
    if unknown := sorted(set(table) - set(hints)):
        raise ConfigError(f"{place}: unknown setting '{unknown[0]}' (known: {', '.join(hints)})")
    values = {
        name: _convert(hints[name], value, f"{place}, {name}", base)
        for name, value in table.items()
    }
    needed = (f.name for f in fields(kind) if f.default is f.default_factory)
    if missing := [name for name in needed if name not in values]:
        raise ConfigError(f"{place}: the setting '{missing[0]}' is missing")
    return kind(**values)


def _convert(hint: Any, value: Any, place: str, base: Path) -> Any:
    if isinstance(hint, UnionType):
        hint = get_args(hint)[0]
    if hasattr(hint, "__dataclass_fields__"):
        return _build(hint, value, place, base)
    if hint is Path and isinstance(value, str):
        return base / value
    if hint is float and type(value) in (int, float):
        return float(value)
    if isinstance(value, list):
        element = get_args(hint)[:1] or (None,)
        return tuple(_convert(element[0], one, place, base) for one in value)
    if isinstance(value, dict) and get_args(hint):
        return {name: _convert(float, one, f"{place}.{name}", base) for name, one in value.items()}
    if hint not in (str, int) or type(value) is not hint:
        raise ConfigError(f"{place}: {value!r} is not of type {getattr(hint, '__name__', hint)}")
    return value
