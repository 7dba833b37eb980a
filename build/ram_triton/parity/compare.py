"""How far two ways to compute the same agree: in logits, tags and heat maps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import ge, le
from typing import Any

import numpy as np
import numpy.typing as npt

from ram_triton.engines.tagger import Array, Logits
from ram_triton.errors import GraphError, ParityError
from ram_triton.graphs.half_precision import largest_number
from ram_triton.parity.limits import HALF_LIMITS, HEADROOM, Check, Figures, Limits
from ram_triton.repository.layout import NONE
from ram_triton.server_code import Vocabulary, select, sigmoid

# Scores that float32 distinguishes from 0 and 1; a threshold beyond them has no finite logit.
SMALLEST_SCORE, LARGEST_SCORE = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg
SHOWN = 8  # tags per image whose heat maps are compared


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

    def checks(self, limits: Limits) -> Iterator[Check]:
        """Yield each figure that has a limit."""
        flip = "a tag flips whose logit is off its threshold by"
        yield (
            "largest logit difference",
            self.largest_logit_difference,
            le,
            limits.logit_difference,
        )
        yield flip, self.largest_flip_distance, le, limits.flip_distance
        yield "tag F1", self.tag_f1, ge, limits.tag_f1

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
class MapAgreement(Figures):
    """How far a candidate's heat maps agree with those of a reference.

    Attributes:
        maps: how many were compared.
        largest_map_difference: of two weights of a map, whose sum is 1; NaN if a weight is NaN.
    """

    maps: int
    largest_map_difference: float

    def checks(self, limits: Limits) -> Iterator[Check]:
        """Yield the figure, which has a limit."""
        what = "largest difference of a heat map's weights"
        yield what, self.largest_map_difference, le, limits.map_difference

    def __str__(self) -> str:
        return f"largest difference {self.largest_map_difference:.2g} in {self.maps} heat maps"


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


def choose_tags(logits: Logits) -> Array:
    """Choose the tags whose maps are compared: of each image the highest-scoring ones.

    Args:
        logits: (images, tags).

    Returns:
        (images, shown + 1) int32; the last column is padding, to be checked too.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :SHOWN]
    return np.pad(best, ((0, 0), (0, 1)), constant_values=-1).astype(np.int32)


def compare_maps(expected: Array, tag_ids: Array, actual: Array, actual_ids: Array) -> MapAgreement:
    """Compare a candidate's heat maps with a reference's, tag by tag.

    Args:
        expected: the reference's maps, (images, tags, side, side).
        tag_ids: of which tag each is, (images, tags).
        actual: the candidate's, likewise.
        actual_ids: likewise; tags that only one of both has are not compared.

    Raises:
        ParityError: the maps' sizes differ, or there is nothing to compare.
    """
    if expected.shape[2:] != actual.shape[2:]:
        raise ParityError(
            f"heat maps of shapes {expected.shape} and {actual.shape} cannot be compared"
        )
    differences = []
    for maps, ids, others, other_ids in zip(expected, tag_ids, actual, actual_ids, strict=True):
        places = {int(tag): place for place, tag in enumerate(other_ids)}
        for own, tag in zip(maps, ids, strict=True):
            if int(tag) in places:
                differences.append(np.abs(own - others[places[int(tag)]]).max())
    if not differences:
        raise ParityError("there are no heat maps to compare")
    return MapAgreement(len(differences), float(np.max(differences)))


def _chosen(logits: Logits, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """Return which tags the server would return, (images, tags) bool."""
    result = np.zeros(logits.shape, bool)
    for row, image_logits in zip(result, logits, strict=True):
        row[select(image_logits, vocabulary)[0]] = True
    return result
