"""Logits of a request's own labels to tags: as of the served vocabulary, and where each is from.

This file imports no Triton: the server and the tests run this very file.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .postprocess import Options, RequestError, Vocabulary, postprocess


def read_options(inputs: Mapping[str, np.ndarray], batch: int) -> list[Options]:
    """Read the optional inputs of a request, as `Options.read`.

    Raises:
        RequestError: as `Options.read`, or there is not one row for each image, of which Triton
            itself takes care where inputs share a batch dimension.
    """
    for name, rows in inputs.items():
        if len(rows) != batch:
            raise RequestError(f"{name}: {len(rows)} rows for {batch} images")
    return Options.read(inputs, batch)


def postprocess_open(
    logits: np.ndarray, labels: Vocabulary, in_vocabulary: np.ndarray, options: Sequence[Options]
) -> dict[str, np.ndarray]:
    """Name the tags of a batch of images.

    Args:
        logits: (B, N) float32.
        labels: names and thresholds of the request's N labels.
        in_vocabulary: which of them the served vocabulary has, (N,) bool.
        options: one for each of the B images.

    Returns:
        As `postprocess`, whose `tag_ids` are places in the request's labels; and `known` (B, M)
        bool, whether a tag is of the served vocabulary; padding is not.

    Raises:
        RequestError, FloatingPointError: as `postprocess`.
    """
    outputs = postprocess(logits, labels, options)
    ids = outputs["tag_ids"]
    return outputs | {"known": (ids >= 0) & in_vocabulary[ids]}
