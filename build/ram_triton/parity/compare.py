"""How far two ways to compute the same logits agree, in numbers and in tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ram_triton.engines.tagger import Logits
from ram_triton.errors import GraphError, ParityError
from ram_triton.graphs.half_precision import largest_number
from ram_triton.parity.figures import Figures
from ram_triton.parity.limits import HALF_LIMITS, HEADROOM, Limits
from ram_triton.repository.layout import NONE
from ram_triton.server_code import Vocabulary, select, sigmoid

# Scores that float32 distinguishes from 0 and 1; a threshold beyond them has no finite logit.
SMALLEST_SCORE, LARGEST_SCORE = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg


@dataclass(frozen=True)
class Agreement(Figures):
    """How far a candidate's logits agree with those of a reference.

    Attributes:
        images: how many images were compared.
        largest_logit_difference: over all images and tags; NaN if a logit is NaN.
        flipped_tags: tags, counted over all images, that only one of both chose.
        largest_flip_distance: over those, how far the reference's logit is from the one at which
            the tag passes its threshold; 0 if none flips.
        largest_flip_distance_score: the same as scores: |score - threshold|.
        tag_f1: F1 of the candidate's tags when the reference's are the truth, over all images;
            1 if neither chose any.
    """

    images: int
    largest_logit_difference: float
    flipped_tags: int
    largest_flip_distance: float
    largest_flip_distance_score: float
    tag_f1: float

    def beyond(self, limits: Limits) -> list[str]:
        """Return a phrase for each figure beyond its limit, with both numbers."""
        # Each written so that NaN is beyond the limit.
        return [
            f"{what} {figure:.3g}, the limit is {limit:g}"
            for what, figure, limit, within in (
                (
                    "largest logit difference",
                    self.largest_logit_difference,
                    limits.logit_difference,
                    self.largest_logit_difference <= limits.logit_difference,
                ),
                (
                    "a tag flips whose logit is off its threshold by",
                    self.largest_flip_distance,
                    limits.flip_distance,
                    self.largest_flip_distance <= limits.flip_distance,
                ),
                ("tag F1", self.tag_f1, limits.tag_f1, self.tag_f1 >= limits.tag_f1),
            )
            if not within
        ]

    def __str__(self) -> str:
        flips = "no tag flips"
        if self.flipped_tags:
            flips = (
                f"{self.flipped_tags} tags flip, at most {self.largest_flip_distance:.2g} from "
                f"their threshold (score {self.largest_flip_distance_score:.2g})"
            )
        return (
            f"largest logit difference {self.largest_logit_difference:.2g}, {flips}, "
            f"tag F1 {self.tag_f1:.4f} on {self.images} images"
        )


@dataclass(frozen=True)
class HalfPrecision:
    """What was measured of half-precision graphs, and what is allowed.

    Attributes:
        precision: `float16` or `bfloat16`.
        agreement: with PyTorch in float32, on pictures, of logits or heat maps.
        tensor: the half-precision tensor that grew largest.
        largest_activation: its largest magnitude.
    """

    precision: str
    agreement: Figures
    tensor: str
    largest_activation: float

    @classmethod
    def of(
        cls,
        precision: str,
        agreement: Figures,
        peaks: Mapping[str, Mapping[str, float]],
    ) -> "HalfPrecision":
        """Find the largest activation.

        Args:
            precision: `float16` or `bfloat16`.
            agreement: with PyTorch in float32.
            peaks: the largest magnitude of each tensor, by the graph's name, then the tensor's.
        """
        by_name = {
            f"{graph}: {tensor}": peak
            for graph, tensors in peaks.items()
            for tensor, peak in tensors.items()
        }
        tensor = max(by_name, key=lambda name: by_name[name])
        return cls(precision, agreement, tensor, by_name[tensor])

    @property
    def activation_limit(self) -> float:
        """How large an activation may grow."""
        return largest_number(self.precision) / HEADROOM

    def require(self, candidate: str) -> None:
        """Check all figures.

        Raises:
            GraphError: an activation is too large.
            ParityError: the logits, tags or maps differ by more than the limits; the message starts
                with `candidate`.
        """
        if self.largest_activation > self.activation_limit:
            raise GraphError(
                f"{self.precision}: an activation reaches {self.largest_activation:.3g} "
                f"({self.tensor}), the limit is {self.activation_limit:.3g}; "
                f"PRECISION=bfloat16 has more room"
            )
        try:
            self.agreement.require(HALF_LIMITS[self.precision], candidate)
        except ParityError as error:
            raise ParityError(f"{error}; PRECISION={NONE} builds without them") from None

    def as_dict(self) -> dict[str, Any]:
        """Return limits and figures by name, for the manifest."""
        limits = HALF_LIMITS[self.precision].as_dict()
        return {
            "precision": self.precision,
            "limits": limits | {"largest_activation": self.activation_limit},
            "measured": self.agreement.as_dict()
            | {"largest_activation": self.largest_activation, "tensor": self.tensor},
        }

    def __str__(self) -> str:
        return (
            f"{self.precision}: {self.agreement}; activations reach {self.largest_activation:.3g} "
            f"of {largest_number(self.precision):.3g}"
        )


def compare(expected: Logits, actual: Logits, vocabulary: Vocabulary) -> Agreement:
    """Compare a candidate's logits with a reference's.

    Args:
        expected: the reference's, (images, tags) float32.
        actual: the candidate's, likewise.
        vocabulary: the tags and their thresholds.

    Raises:
        ParityError: there are no images, or the shapes are not those of one vocabulary.
    """
    shape = (len(expected), len(vocabulary.tags))
    if not len(expected) or expected.shape != shape or actual.shape != shape:
        raise ParityError(
            f"logits of shapes {expected.shape} and {actual.shape} cannot be compared over "
            f"{len(vocabulary.tags)} tags"
        )
    chosen, rechosen = (_chosen(logits, vocabulary) for logits in (expected, actual))
    flipped = chosen != rechosen
    thresholds = np.broadcast_to(vocabulary.thresholds, shape)[flipped].astype(np.float64)
    passing = np.clip(thresholds, SMALLEST_SCORE, LARGEST_SCORE)
    distances = np.abs(expected[flipped] - np.log(passing / (1 - passing)))
    total = chosen.sum() + rechosen.sum()
    return Agreement(
        images=len(expected),
        largest_logit_difference=float(np.abs(expected - actual).max()),
        flipped_tags=int(flipped.sum()),
        largest_flip_distance=float(distances.max(initial=0)),
        largest_flip_distance_score=float(
            np.abs(sigmoid(expected[flipped]) - thresholds).max(initial=0)
        ),
        tag_f1=float(2 * (chosen & rechosen).sum() / total) if total else 1.0,
    )


def _chosen(logits: Logits, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """Return which tags the server would return, (images, tags) bool."""
    result = np.zeros(logits.shape, bool)
    for row, image_logits in zip(result, logits, strict=True):
        row[select(image_logits, vocabulary)[0]] = True
    return result
