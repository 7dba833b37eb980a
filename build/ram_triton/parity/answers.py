"""The one judge of answers: what a server's tags, or an engine's logits, have to be.

The build, `bench`, `verify` and the load test all know an image's scores in advance, from PyTorch,
from an engine, from the same answer's logits or from an answer to the image alone. They differ only
in how far another answer's scores may be from these: the tolerance. `Bounds` turns both into the
interval in which each score must lie, and `find_wrong_tag` compares an answer with the intervals.
How far two sets of logits agree in figures, for limits, is the subject of `parity.compare`.

The one rule near a threshold: a tag must be in the answer if even its lowest score exceeds its
threshold, must not be in it if even its highest does not, and may be or not be in it otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client import Tag

from ram_triton.server_code import TagOptions, Vocabulary, sigmoid

# What one score may differ by from itself: the server's numpy may round it otherwise than ours.
SCORE_ROUNDING = 1e-5

EVERY_TAG = TagOptions()  # above its own threshold

Numbers = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Bounds:
    """The interval in which each score of an image must lie; contains `SCORE_ROUNDING`.

    Attributes:
        lowest: (tags,) scores.
        highest: (tags,) scores.
    """

    lowest: Numbers
    highest: Numbers

    @classmethod
    def of_scores(cls, scores: Numbers, tolerance: float = 0.0) -> "Bounds":
        """Allow scores (tags,) to differ by `tolerance`, a difference of scores."""
        margin = tolerance + SCORE_ROUNDING
        return cls(scores - margin, scores + margin)

    @classmethod
    def of_logits(cls, logits: Numbers, tolerance: float = 0.0) -> "Bounds":
        """Allow logits (tags,) to differ by `tolerance`, a difference of logits."""
        lowest, highest = sigmoid(logits - tolerance), sigmoid(logits + tolerance)
        return cls(lowest - SCORE_ROUNDING, highest + SCORE_ROUNDING)


def find_wrong_tag(
    tags: Sequence[Tag],
    bounds: Bounds,
    vocabulary: Vocabulary,
    options: TagOptions = EVERY_TAG,
) -> str | None:
    """Compare the tags of one image with what they have to be.

    Args:
        tags: the server's answer about the image, as `ram_client` reads it.
        bounds: in which the image's scores must lie.
        vocabulary: names and thresholds of all tags that `bounds` has scores of. A tag whose
            English name is empty is one whose names are not known: they are not compared. A
            threshold of NaN is one that is not known: whether the tag is there is not compared.
        options: what the request asked for: a threshold, the highest `top_k`, names to exclude.

    Returns:
        One line that states the first thing that is wrong, or None if the answer is right. What is
        compared: ids, names, scores, their order, and which tags are there and which are missing.
    """
    count = len(bounds.lowest)
    for tag in tags:
        if not 0 <= tag.id < count:
            return f"tag {tag.id} does not exist: {count} tags are expected"
        name, name_zh = vocabulary.tags[tag.id], vocabulary.tags_zh[tag.id]
        if name and (tag.name, tag.name_zh) != (name, name_zh):
            return f"tag {tag.id} is called '{tag.name}' ({tag.name_zh}), not '{name}' ({name_zh})"
        lowest, highest = bounds.lowest[tag.id], bounds.highest[tag.id]
        if not lowest <= tag.score <= highest:  # so that NaN is wrong too
            return f"'{tag.name}' has the score {tag.score:.5f}, not {lowest:.5f} to {highest:.5f}"
    if any(after.score - before.score > SCORE_ROUNDING for before, after in pairwise(tags)):
        return "the tags are not in the order of their scores"
    ids = [tag.id for tag in tags]
    if len(set(ids)) < len(ids):
        return f"'{next(tag.name for tag in tags if ids.count(tag.id) > 1)}' occurs twice"
    if 0 < options.top_k < len(tags):
        return f"there are {len(tags)} tags, but at most {options.top_k} were asked for"
    return _missing_or_extra(tags, bounds, vocabulary, options)


def find_wrong_logit(expected: Numbers, actual: Numbers, tolerance: float) -> str | None:
    """Compare logits, of any shape, with what they have to be.

    Returns:
        One line if one differs by more than `tolerance` or is NaN, or None if all are right.
    """
    difference = float(np.abs(expected - actual).max(initial=0))
    if difference <= tolerance:
        return None
    return f"a logit is off by {difference:.3g}, the limit is {tolerance:g}"


def _missing_or_extra(
    tags: Sequence[Tag], bounds: Bounds, vocabulary: Vocabulary, options: TagOptions
) -> str | None:
    there = np.zeros(len(bounds.lowest), bool)
    there[[tag.id for tag in tags]] = True
    # The server compares float32 numbers.
    given = vocabulary.thresholds if options.threshold is None else options.threshold
    thresholds = np.broadcast_to(np.asarray(given, np.float32), there.shape)
    excluded = np.zeros_like(there)
    for name in filter(None, options.exclude):
        excluded[vocabulary.find(name)] = True
    extra = there & (excluded | (bounds.highest <= thresholds))
    if extra.any():
        return f"'{vocabulary.tags[_first(extra)] or _first(extra)}' is too much"
    missing = ~there & ~excluded & (bounds.lowest > thresholds)
    if options.top_k and len(tags) == options.top_k:
        # A full answer has no room for scores that may be below its last one.
        missing &= bounds.lowest > tags[-1].score
    if missing.any():
        return f"'{vocabulary.tags[_first(missing)] or _first(missing)}' is missing"
    return None


def _first(chosen: npt.NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(chosen)[0])
