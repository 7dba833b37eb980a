"""What the settings of a training run may be; no type tells it."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from ram_triton.model.variant import STAGES
from ram_triton.training.losses import CLASSIFICATION, DISTILLATION, GENERATION, TAGGING

if TYPE_CHECKING:
    from ram_triton.training.config import Config

KNOWN_LOSSES = (TAGGING, CLASSIFICATION, DISTILLATION, GENERATION)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; with `above` or `below` without that end itself."""

    low: float
    high: float = sys.float_info.max
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        if (self.above and value == self.low) or (self.below and value == self.high):
            return False
        return self.low <= value <= self.high  # not true of a NaN

    def __str__(self) -> str:
        least = f"{'more than' if self.above else 'at least'} {self.low:g}"
        if self.high >= sys.float_info.max:
            return least
        return f"{least} and {'less than' if self.below else 'at most'} {self.high:g}"


NATURAL, COUNT, SHARE = Range(0), Range(1), Range(0, 1)
NOT_NEGATIVE, POSITIVE = Range(0), Range(0, above=True)
# By the place in the file; of a list or table, each of its numbers.
RANGES = {
    "threads": NATURAL,
    "seed": Range(0, 2**32 - 1),
    "losses": NOT_NEGATIVE,
    "data.workers": NATURAL,
    "model.image_size": COUNT,
    "model.embed_dim": COUNT,
    "model.depths": COUNT,
    "model.num_heads": COUNT,
    "model.image_width": COUNT,
    "model.hidden_size": COUNT,
    "model.num_layers": COUNT,
    "model.intermediate_size": COUNT,
    "text.layers": COUNT,
    "text.heads": COUNT,
    "asymmetry.gamma_negative": NOT_NEGATIVE,
    "asymmetry.gamma_positive": NOT_NEGATIVE,
    "asymmetry.clip": Range(0, 1, below=True),
    "augmentation.objects": NOT_NEGATIVE,
    "augmentation.scale": POSITIVE,
    "augmentation.shift": NOT_NEGATIVE,
    "augmentation.rotation": NOT_NEGATIVE,
    "augmentation.flip": SHARE,
    "augmentation.colour": SHARE,
    "augmentation.backgrounds": SHARE,
    "augmentation.noise": NOT_NEGATIVE,
    "optimisation.epochs": COUNT,
    "optimisation.batch_size": COUNT,
    "optimisation.learning_rate": POSITIVE,
    "optimisation.encoder_share": NOT_NEGATIVE,
    "optimisation.final_learning_rate": SHARE,
    "optimisation.warmup_steps": NATURAL,
    "optimisation.weight_decay": NOT_NEGATIVE,
    "optimisation.gradient_norm": Range(0, math.inf, above=True),
    "optimisation.ema": Range(0, 1, below=True),
    "reports.checkpoint_seconds": Range(0, math.inf),
    "reports.log_steps": COUNT,
    "reports.validation_epochs": NATURAL,
}


def mistakes(config: "Config") -> Iterator[str]:
    """Say what is wrong with the values of a configuration, a line each."""
    for place, allowed in RANGES.items():
        value = reduce(getattr, place.split("."), config)
        if isinstance(value, (int, float)):
            value = (value,)
        for one in value.values() if place == "losses" else value or ():
            if one not in allowed:
                finite = "" if math.isfinite(one) else " and finite"
                yield f"{place} must be {allowed}{finite}, not {one}"
    yield from _mistakes_of_several(config)


def _mistakes_of_several(config: "Config") -> Iterator[str]:
    """What no single number tells."""
    data, model, augmentation = config.data, config.model, config.augmentation
    for wrong, message in (
        ((data.manifest is None) == (data.folder is None), "data needs a manifest or a folder"),
        (config.device not in ("auto", "cpu", "cuda"), "device must be auto, cpu or cuda"),
        (
            config.optimisation.precision not in ("auto", "bfloat16", "float32"),
            "precision must be auto, bfloat16 or float32",
        ),
        (
            not set(config.losses) <= set(KNOWN_LOSSES),
            f"losses must be among {', '.join(KNOWN_LOSSES)}",
        ),
        (
            not any(config.losses.get(name) for name in (TAGGING, CLASSIFICATION)),
            f"losses must have {TAGGING} or {CLASSIFICATION}: what else would learn the tags?",
        ),
        (
            None not in (model.start, model.swin),
            "model cannot begin from both: start has a Swin Transformer too, so leave swin out",
        ),
        (
            not len(model.depths) == len(model.num_heads) == STAGES,
            f"model.depths and model.num_heads must be {STAGES} numbers each",
        ),
        (
            len(augmentation.scale) != 2 or augmentation.scale[0] > augmentation.scale[-1],
            "augmentation.scale must be two numbers, the smaller first",
        ),
        (not any(augmentation.objects), "augmentation.objects must have a number above 0"),
    ):
        if wrong:
            yield message
