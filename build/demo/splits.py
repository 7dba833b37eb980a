"""The drawings that the model learns from, and those that it is measured on.

Two things are held out, for two figures: one vendor's drawings (does the model know a thing in a
style that it never saw?), and a share of the concepts in all vendors' drawings (does it find the
right tags for a thing that it never saw?). Thresholds are chosen on another vendor's drawings.
"""

import hashlib
from itertools import pairwise

import numpy as np

TEST_VENDOR = "twemoji"
VALIDATION_VENDOR = "emojione-v1"

TRAIN = "train"
VALIDATION = "validation"
TEST_SEEN = "test_seen"
TEST_UNSEEN = "test_unseen"


def hold_out_concepts(
    tags: dict[str, set[str]], share: float = 0.125, largest_loss: float = 0.25
) -> set[str]:
    """Choose the concepts that training never sees.

    They are taken in the order of their names' hashes, so that the choice is the same everywhere.
    A concept is not taken if a tag would have too little left to learn from, if a tag is named
    after it (`umbrella` has to be learned from umbrellas), or if it has no tag to be measured by.

    Args:
        tags: of each concept.
        share: of the concepts with a tag that are held out.
        largest_loss: share of its concepts that a tag may lose; a tag of one concept loses none.

    Returns:
        The held-out concepts.
    """
    total: dict[str, int] = {}
    for names in tags.values():
        for name in names:
            total[name] = total.get(name, 0) + 1
    may_lose = {name: int(count * largest_loss) for name, count in total.items()}
    tagged = [concept for concept, names in tags.items() if names]
    held_out: set[str] = set()
    for concept in sorted(tagged, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(held_out) >= round(share * len(tagged)):
            break
        if concept not in total and all(may_lose[name] > 0 for name in tags[concept]):
            held_out.add(concept)
            for name in tags[concept]:
                may_lose[name] -= 1
    return held_out


def choose_split(vendor: str, unseen: bool) -> str | None:
    """Return the split of a drawing.

    Args:
        vendor: who drew it.
        unseen: whether its concept is held out.

    Returns:
        The split; None for a held-out concept by any vendor but the test's.
    """
    if vendor == TEST_VENDOR:
        return TEST_UNSEEN if unseen else TEST_SEEN
    if unseen:
        return None
    return VALIDATION if vendor == VALIDATION_VENDOR else TRAIN


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Return a drawing's thumbnail on white, without its margins: equal for near-equal drawings.

    Args:
        pixels: uint8 RGBA, (height, width, 4).

    Returns:
        float32 in 0 to 1, (16, 16, 3); white where nothing is drawn.
    """
    alpha = pixels[..., 3:].astype(np.float32) / 255
    colour = (pixels[..., :3] / np.float32(255)) * alpha + (1 - alpha)
    rows, columns = np.nonzero(alpha[..., 0] > 0.06)
    if not len(rows):
        return np.ones((16, 16, 3), np.float32)
    colour = colour[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    for axis in (0, 1):
        # The mean of each of 16 stripes; a drawing of fewer pixels repeats some of them.
        edges = np.linspace(0, colour.shape[axis], 17)
        stripes = [
            colour.take(range(int(start), max(int(np.ceil(end)), int(start) + 1)), axis).mean(axis)
            for start, end in pairwise(edges)
        ]
        colour = np.stack(stripes, axis)
    return colour


def find_copies(
    thumbnails: np.ndarray, vendors: list[str], concepts: list[str], largest_difference: float
) -> set[int]:
    """Find drawings that the test vendor's drawing of the same concept repeats.

    Vendors draw simple things (a clock face, a diamond) almost alike; a model that learned from one
    is not tested by the other.

    Args:
        thumbnails: of all drawings, float32, (drawings, 16, 16, 3).
        vendors: one per drawing.
        concepts: one per drawing.
        largest_difference: mean absolute difference up to which two thumbnails are copies, 0 to 1.

    Returns:
        Indices of the drawings, none of them the test vendor's.
    """
    tests: dict[str, list[int]] = {}
    for index, (vendor, concept) in enumerate(zip(vendors, concepts, strict=True)):
        if vendor == TEST_VENDOR:
            tests.setdefault(concept, []).append(index)
    copies = set()
    for index, (vendor, concept) in enumerate(zip(vendors, concepts, strict=True)):
        if vendor != TEST_VENDOR and concept in tests:
            differences = np.abs(thumbnails[tests[concept]] - thumbnails[index])
            if differences.mean(axis=(1, 2, 3)).min() <= largest_difference:
                copies.add(index)
    return copies
