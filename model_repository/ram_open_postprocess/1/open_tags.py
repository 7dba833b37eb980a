"""Logits of a request's own labels to tags, as for the served vocabulary.

This file does not import Triton: the server, the build and the tests run this very file.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .postprocess import TagOptions, Vocabulary, postprocess
from .request import RequestError


def read_options(inputs: Mapping[str, np.ndarray], batch: int) -> list[TagOptions]:
    """Read the optional inputs of a request, as `TagOptions.read`.

    Raises:
        RequestError: as `TagOptions.read`, or an input does not have one row per image. Triton
            checks that itself only if the inputs share a batch dimension.
    """
    for name, rows in inputs.items():
        if len(rows) != batch:
            raise RequestError(f"{name}: {len(rows)} rows for {batch} images")
    return TagOptions.read(inputs, batch)


def require_labels(logits: np.ndarray, labels: Vocabulary, in_vocabulary: np.ndarray) -> None:
    """Check that a request's tensors have one entry per label.

    The ensemble's steps see to that; who asks this model directly may send anything.

    Raises:
        RequestError: one has more or fewer.
    """
    count = logits.shape[1]
    for name, values in (
        ("names", labels.tags),
        ("names_zh", labels.tags_zh),
        ("thresholds", labels.thresholds),
        ("in_vocabulary", in_vocabulary),
    ):
        if len(values) != count:
            raise RequestError(f"{name}: {len(values)} for {count} labels")


def postprocess_open(
    logits: np.ndarray,
    labels: Vocabulary,
    in_vocabulary: np.ndarray,
    options: Sequence[TagOptions],
) -> dict[str, np.ndarray]:
    """Name the tags of a batch of images.

    Args:
        logits: (B, N) float32.
        labels: names and thresholds of the request's N labels.
        in_vocabulary: which of them are in the served vocabulary, (N,) bool.
        options: one per image.

    Returns:
        As `postprocess`, with places in the request's labels as `tag_ids`; and `known` (B, M) bool,
        whether a tag is in the served vocabulary, false for padding.

    Raises:
        RequestError, FloatingPointError: as `postprocess`.
    """
    outputs = postprocess(logits, labels, options)
    ids = outputs["tag_ids"]
    return outputs | {"known": (ids >= 0) & in_vocabulary[ids]}
