"""How far two ways to compute the same logits agree, in numbers and in tags."""

from dataclasses import asdict, dataclass

import numpy as np

from ram_triton.errors import ParityError
from ram_triton.server_code import Vocabulary, select, sigmoid

# Scores that float32 tells from 0 and from 1; a threshold beyond them has no finite logit.
SMALLEST_SCORE, LARGEST_SCORE = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg


@dataclass(frozen=True)
class Limits:
    """What a candidate may differ by from its reference.

    Attributes:
        logit_difference: the largest, of any image and tag.
        flip_distance: how far from its threshold, as a logit, a tag may be that flips.
        tag_f1: the smallest F1 of the candidate's tags.
    """

    logit_difference: float
    flip_distance: float
    tag_f1: float

    def as_dict(self) -> dict[str, float]:
        """Return the limits by name, for the manifest."""
        return asdict(self)


# Engines sum float32 products in different orders, which moves a logit by some 1e-5. A graph that
# computes something else is off by far more than this.
FLOAT32 = Limits(logit_difference=1e-3, flip_distance=1e-3, tag_f1=0.99)


@dataclass(frozen=True)
class Agreement:
    """How far a candidate's logits agree with those of a reference.

    Attributes:
        images: how many images were compared.
        largest_logit_difference: over all images and tags; NaN where a logit is no number.
        flipped_tags: tags, counted over all images, that only one of both chose.
        largest_flip_distance: over those, how far the reference's logit is from the one at which
            the tag passes its threshold; 0 where none flips.
        largest_flip_distance_score: the same as scores: |score - threshold|.
        tag_f1: F1 of the candidate's tags when the reference's are the truth, over all images;
            1 where neither chose any.
    """

    images: int
    largest_logit_difference: float
    flipped_tags: int
    largest_flip_distance: float
    largest_flip_distance_score: float
    tag_f1: float

    def beyond(self, limits: Limits) -> list[str]:
        """Return a phrase for each limit that is passed, its figure and the limit in it."""
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


def compare(expected: np.ndarray, actual: np.ndarray, vocabulary: Vocabulary) -> Agreement:
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


def _chosen(logits: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Which tags the server would return, (images, tags) bool."""
    result = np.zeros(logits.shape, bool)
    for row, image_logits in zip(result, logits, strict=True):
        row[select(image_logits, vocabulary)[0]] = True
    return result
