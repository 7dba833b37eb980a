"""The settings of a training run, read from a TOML file; each has its documentation beneath it."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ram_triton.errors import ConfigError
from ram_triton.model.variant import STAGES


def _resolve(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", ""), path)


File = Annotated[Path, AfterValidator(_resolve)]  # relative to the configuration's own folder
Natural = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
ShareBelow1 = Annotated[float, Field(strict=True, ge=0, lt=1)]
PerStage = Annotated[tuple[Count, ...], Field(min_length=STAGES, max_length=STAGES)]

# What is wrong with a setting, by pydantic's name of the fault; the braces are its own facts.
FAULTS = {
    "missing": "the setting is missing",
    "extra_forbidden": "unknown setting (known: {known})",
    "model_type": "must be a table, not {input!r}",
    "tuple_type": "must be a list, not {input!r}",
    "int_type": "must be a whole number, not {input!r}",
    "float_type": "must be a number, not {input!r}",
    "finite_number": "must be a finite number, not {input!r}",
    "string_type": "must be text, not {input!r}",
    "path_type": "must be text, not {input!r}",
    "literal_error": "must be {expected}, not {input!r}",
    "greater_than": "must be more than {gt:.10g}, not {input!r}",
    "greater_than_equal": "must be at least {ge:.10g}, not {input!r}",
    "less_than": "must be less than {lt:.10g}, not {input!r}",
    "less_than_equal": "must be at most {le:.10g}, not {input!r}",
    "too_short": "must have at least {min_length} numbers, not {actual_length}",
    "too_long": "must have at most {max_length} numbers, not {actual_length}",
    "value_error": "{error}",
}


class Section(BaseModel):
    """A table of the file: it cannot be changed, and an unknown setting in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Data(Section):
    """Where images, tags, captions and features come from."""

    vocabulary: File
    """Folder with ram_tag_list.txt and ram_tag_list_chinese.txt."""
    label_embeddings: File | None = None
    """.npy, float32 (tags, label_width), in the vocabulary's order; `ram-triton labels` makes it.
    Training needs it."""
    manifest: File | None = None
    """JSONL, one line per image; see `training.manifest`."""
    folder: File | None = None
    """Images with a .txt of tags beside each, in place of a manifest. Its subfolders are splits:
    `train`, `validation`, or any other; images directly in it have none."""
    images: File | None = None
    """.npy, uint8 (images, height, width, 3 or 4), if the manifest gives indices."""
    features: File | None = None
    """.npy, floating (manifest lines, image_width): the CLIP-like feature of each image; a row of
    NaN means that there is none."""
    training_split: str = "train"
    """The images to learn from; those without a split are used too."""
    validation_split: str = "validation"
    """The images to measure on during training."""
    workers: Natural = 1
    """Processes that prepare batches; 0 prepares them in the training process."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.manifest is None) == (self.folder is None):
            raise ValueError("must have a manifest or a folder, not both")
        return self


class Model(Section):
    """What is trained: sizes, or weights to start from that have them.

    The sizes are those of `model.variant.Variant`.
    """

    start: File | None = None
    """A RAM checkpoint. Its sizes are used; its label embeddings are replaced."""
    swin: File | None = None
    """Weights of a Swin Transformer for the image encoder, in Microsoft's or timm's naming."""
    image_size: Count | None = None
    """Side length in pixels; if it is not given, that of `start`, else 224."""
    embed_dim: Count = 128
    """Width of the Swin's first stage."""
    depths: PerStage = (2, 2, 18, 2)
    """Blocks per stage of the Swin."""
    num_heads: PerStage = (4, 8, 16, 32)
    """Attention heads per stage of the Swin."""
    image_width: Count = 512
    """Width of the image embeddings that the head attends to."""
    hidden_size: Count = 768
    """Width of the head."""
    num_layers: Count = 2
    """Layers of the head."""
    intermediate_size: Count = 3072
    """Width inside the head's feed-forward networks."""

    @model_validator(mode="after")
    def _require_one_start(self) -> Self:
        if None not in (self.start, self.swin):
            raise ValueError("cannot begin from both: start has a Swin too, so leave swin out")
        return self


class Text(Section):
    """The tag encoder and the text decoder, which captions train."""

    vocabulary: File | None = None
    """Folder with the vocab.txt of a BERT; without it captions train nothing."""
    layers: Count = 12
    """Layers of each of the two."""
    heads: Count = 12
    """Attention heads of each of the two."""


class Asymmetry(Section):
    """The tagging loss; see `training.losses.asymmetric_loss`. The defaults are RAM's."""

    gamma_negative: NotNegative = 7.0
    """How much less easy negatives count."""
    gamma_positive: NotNegative = 0.0
    """How much less easy positives count."""
    clip: ShareBelow1 = 0.05
    """The probability below which a negative costs nothing."""


class Augmentation(Section):
    """How pictures are varied; see `training.augment`. The defaults suit photographs."""

    objects: tuple[NotNegative, ...] = (1.0,)
    """How often one, two, … images share a picture, in any unit."""
    scale: tuple[Positive, ...] = (1.0, 1.5)
    """Smallest and largest side of an image that is alone, as a share of the picture's."""
    shift: NotNegative = 0.1
    """How far its centre moves at most, as a share of the picture's side."""
    rotation: NotNegative = 5.0
    """How far it turns at most to either side, in degrees."""
    flip: Share = 0.5
    """How often an image is mirrored."""
    colour: Share = 0.4
    """Strength of changes of hue, saturation, brightness and contrast."""
    backgrounds: Share = 0.5
    """How often a background other than white is behind transparency."""
    noise: NotNegative = 4.0
    """Largest standard deviation of the noise, for pixels from 0 to 255."""

    @model_validator(mode="after")
    def _require_possible_pictures(self) -> Self:
        if not any(self.objects):
            raise ValueError("objects must have a number above 0")
        if len(self.scale) != 2 or self.scale[0] > self.scale[1]:
            raise ValueError("scale must be two numbers, the smaller first")
        return self


class Optimisation(Section):
    """AdamW's settings, and how long it runs."""

    epochs: Count = 5
    """Passes over the images."""
    batch_size: Count = 64
    """Pictures per step."""
    learning_rate: Positive = 1e-4
    """The highest, after the warm-up."""
    encoder_share: NotNegative = 1.0
    """The share of it for the image encoder: less than 1 if that was trained before."""
    final_learning_rate: Share = 0.0
    """The cosine's end, as a share of the highest."""
    warmup_steps: Natural = 500
    """Steps over which the learning rate grows from 0."""
    weight_decay: NotNegative = 0.05
    """Of matrices; biases, norms and position tables have none."""
    gradient_norm: Annotated[float, Field(strict=True, gt=0)] = 1.0
    """The norm to which gradients are clipped; inf clips none."""
    ema: ShareBelow1 = 0.999
    """Share of the averaged weights that each step keeps; 0 averages nothing."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto is bfloat16 if the device is faster with it."""


class Reports(Section):
    """How often a run saves and reports its state."""

    checkpoint_seconds: Annotated[float, Field(strict=True, ge=0)] = 120.0
    """Between checkpoints; one is also written at the end of each epoch."""
    log_steps: Count = 20
    """Between points of the metrics."""
    validation_epochs: Natural = 1
    """Between measurements on the validation split; 0 measures never."""


class Losses(Section):
    """Weights of the losses; one that is 0 or not listed is left out. See `training.losses`."""

    tagging: NotNegative = 0.0
    """Trains the tagging head."""
    classification: NotNegative = 0.0
    """Pre-trains an encoder that knows nothing, by a linear classifier."""
    distillation: NotNegative = 0.0
    """Pulls the mean token towards the images' features."""
    generation: NotNegative = 0.0
    """Writes captions from images and their tags."""

    @model_validator(mode="after")
    def _require_tags(self) -> Self:
        if not (self.tagging or self.classification):
            raise ValueError("must have tagging or classification: nothing else learns the tags")
        return self


class Config(Section):
    """A training run."""

    output: File
    """Folder for checkpoints, metrics and the trained model."""
    data: Data
    model: Model = Model()
    text: Text = Text()
    asymmetry: Asymmetry = Asymmetry()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()
    reports: Reports = Reports()
    losses: Losses = Losses(tagging=1.0, distillation=1.0, generation=1.0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is cuda if there is a GPU."""
    threads: Natural = 0
    """Threads of the training process on a CPU; 0 is one per core. For a small model on a machine
    with other work, 1 can be faster than 2."""
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)] = 0
    """Decides the order of the images, their variations and the first weights."""

    @property
    def trained_model(self) -> Path:
        """The file of the trained model, a checkpoint in the published format."""
        return self.output / "ram.safetensors"


def read_config(path: Path) -> Config:
    """Read a configuration; relative paths in it start from its own folder.

    Raises:
        ConfigError: it is not TOML; or, one line per fault, a setting is unknown, missing, of the
            wrong type or out of range.
        OSError: the file cannot be read.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML ({error})") from error
    try:
        return Config.model_validate(table, context={"folder": path.resolve().parent})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError("\n".join(f"{path}: {_describe(fault)}" for fault in faults)) from error


def _describe(fault: Any) -> str:
    """Describe one of pydantic's faults: the setting's key as in TOML, and what is wrong."""
    section: Any = Config
    for name in fault["loc"][:-1]:
        field = getattr(section, "model_fields", {}).get(name)
        section = field and field.annotation
    facts = fault.get("ctx", {}) | {"input": fault["input"]}
    facts["known"] = ", ".join(getattr(section, "model_fields", ()))
    words = FAULTS.get(fault["type"], fault["msg"]).format(**facts)
    key = "".join(f"[{n}]" if isinstance(n, int) else f".{n}" for n in fault["loc"])
    return f"{key.removeprefix('.')}: {words}"
