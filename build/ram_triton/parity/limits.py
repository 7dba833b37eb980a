"""What graphs may differ by from PyTorch in float32, in each precision, and how it is checked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from ram_triton.errors import ParityError


@dataclass(frozen=True)
class Limits:
    """What a candidate may differ by from its reference.

    Attributes:
        logit_difference: the largest difference of two logits, of any image and tag.
        flip_distance: how far from its threshold, as a logit, a tag may be that flips.
        tag_f1: the smallest F1 of the candidate's tags.
        map_difference: the largest difference of two weights of a heat map, whose sum is 1.
    """

    logit_difference: float
    flip_distance: float
    tag_f1: float
    map_difference: float = 0.0  # of builds before they had heat maps

    def as_dict(self) -> dict[str, float]:
        """Return the limits by name, for the manifest."""
        return asdict(self)


# Engines sum float32 products in different orders, which moves a logit by some 1e-5. A graph that
# computes something else is off by far more than this.
FLOAT32_LIMITS = Limits(logit_difference=1e-3, flip_distance=1e-3, tag_f1=0.99, map_difference=1e-4)
HALF_LIMITS = {
    # A logit off by 0.1 moves a score by 0.025 at most, one off by 0.05 by about the 0.01 that
    # RAM's own thresholds are rounded to. F1 leaves room for one flip among a dozen tags: a few
    # pictures show no more. A hundredth of a map's weight moves no maximum that anyone would see.
    "float16": Limits(logit_difference=0.1, flip_distance=0.05, tag_f1=0.95, map_difference=0.01),
    # Three bits fewer round eight times as coarsely.
    "bfloat16": Limits(logit_difference=0.8, flip_distance=0.4, tag_f1=0.9, map_difference=0.08),
}
# Twice bfloat16's, which has eight bits of mantissa too: activations are rounded as well. Flips get
# some more: weights have seven bits, so that all processors agree.
INT8_LIMITS = Limits(logit_difference=1.6, flip_distance=1.0, tag_f1=0.85, map_difference=0.16)
# How many times larger than in the check an activation must have room to grow: other pictures may
# drive it higher.
HEADROOM = 2.0


# What a figure is, the figure, what it must be to its limit (such as `operator.le`), the limit.
Check = tuple[str, float, Callable[[float, float], bool], float]


@dataclass(frozen=True)
class Figures(ABC):
    """How far a candidate agrees with a reference, in numbers."""

    @abstractmethod
    def checks(self, limits: Limits) -> Iterator[Check]:
        """Yield each figure that has a limit; NaN is beyond every limit."""

    def beyond(self, limits: Limits) -> list[str]:
        """Return a phrase for each figure beyond its limit, with both numbers."""
        return [
            f"{what} {figure:.3g}, the limit is {limit:g}"
            for what, figure, is_within, limit in self.checks(limits)
            if not is_within(figure, limit)
        ]

    def require(self, limits: Limits, candidate: str = "the graphs") -> None:
        """Check the figures.

        Raises:
            ParityError: one is beyond its limit; the message starts with `candidate`.
        """
        if problems := self.beyond(limits):
            raise ParityError(f"{candidate} differ from PyTorch: {'; '.join(problems)}")

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, for the manifest."""
        return asdict(self)
