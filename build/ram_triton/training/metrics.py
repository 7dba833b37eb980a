"""How well scores tell right tags from wrong ones, and the thresholds that do it best."""

from dataclasses import dataclass

import numpy as np

# For tags that the validation split never shows; that of RAM's reference for tags without one.
UNKNOWN_THRESHOLD = 0.68
FEWEST = 5  # images that a threshold is chosen on
SMALLEST_THRESHOLD, LARGEST_THRESHOLD = 0.02, 0.98  # a tag at the edge would always or never show


@dataclass(frozen=True)
class Detection:
    """Precision, recall and F1, each 0 to 1; 0 where nothing could be counted."""

    precision: float
    recall: float
    f1: float


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each tag's average precision: Σ (Rₙ - Rₙ₋₁) Pₙ over all distinct scores.

    As scikit-learn's `average_precision_score` defines it, without interpolation; images of equal
    score count together.

    Args:
        targets: bool (images, tags).
        scores: floating (images, tags).

    Returns:
        float64 (tags); NaN where no image has the tag.
    """
    result = np.full(targets.shape[1], np.nan)
    for tag in np.flatnonzero(targets.any(axis=0)):
        hits, precision, _ = _sweep(targets[:, tag], scores[:, tag])
        result[tag] = (np.diff(hits, prepend=0) / hits[-1] * precision).sum()
    return result


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean of the average precisions of all tags that some image has; else NaN."""
    values = average_precision(targets, scores)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def detect(targets: np.ndarray, shown: np.ndarray) -> dict[str, Detection]:
    """Compare right tags with shown ones.

    Args:
        targets: bool (images, tags).
        shown: bool, of the same shape.

    Returns:
        "micro", over all pairs of image and tag; and "macro", the mean of the tags' own figures,
        over the tags that some image has.
    """
    both = (targets & shown).sum(axis=0)
    micro = _detection(both.sum(), shown.sum(), targets.sum())
    present = targets.any(axis=0)
    each = _detection(both[present], shown.sum(axis=0)[present], targets.sum(axis=0)[present])
    return {
        "micro": Detection(*(float(value) for value in micro)),
        "macro": Detection(*(float(value.mean()) if present.any() else 0.0 for value in each)),
    }


def best_thresholds(targets: np.ndarray, scores: np.ndarray, fewest: int = FEWEST) -> np.ndarray:
    """Choose for each tag the threshold under which its F1 is best.

    What suits a few images says little of others: where one of them scores low, everything else
    would be shown too. Tags of fewer images share the threshold of best F1 over all tags (micro).

    A tag is shown where its score exceeds its threshold. Thresholds lie halfway between the scores
    that they part. Of equally good ones the highest is taken: it shows the fewest wrong tags.

    Args:
        targets: bool (images, tags).
        scores: floating (images, tags), 0 to 1.
        fewest: images that a threshold of its own needs, at least 1.

    Returns:
        float32 (tags); `UNKNOWN_THRESHOLD` where no image has any tag.
    """
    if not targets.any():
        return np.full(targets.shape[1], UNKNOWN_THRESHOLD, np.float32)
    shared = _best_threshold(targets.ravel(), scores.ravel())
    thresholds = np.full(targets.shape[1], shared, np.float32)
    for tag in np.flatnonzero(targets.sum(axis=0) >= fewest):
        thresholds[tag] = _best_threshold(targets[:, tag], scores[:, tag])
    return np.clip(thresholds, SMALLEST_THRESHOLD, LARGEST_THRESHOLD)


def _best_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    hits, precision, values = _sweep(targets, scores)
    recall = hits / hits[-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return (values[best] + below) / 2


def _sweep(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ones and precision among all images with at least each distinct score, from the top."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each score
    hits = targets[order].cumsum()[last]
    return hits, hits / (last + 1), ranked[last]


def _detection(both: np.ndarray, shown: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    precision = both / np.maximum(shown, 1)
    recall = both / np.maximum(right, 1)
    return precision, recall, 2 * both / np.maximum(shown + right, 1)
