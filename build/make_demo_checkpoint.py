"""Write the demo's checkpoint: a tiny RAM whose weights are noise."""

import sys
from pathlib import Path

from ram.checkpoint import save_model
from ram.random_weights import random_model
from ram.tag_lists import ENGLISH
from ram.variant import Variant

VOCABULARY = Path(__file__).resolve().parent / "demo" / "vocabulary"


def demo_variant() -> Variant:
    """Return the sizes of the demo's model."""
    return Variant(
        image_size=96,
        embed_dim=48,
        depths=(2, 2, 2, 2),
        num_heads=(2, 4, 8, 16),
        image_width=128,
        label_width=384,
        num_tags=len((VOCABULARY / ENGLISH).read_text(encoding="utf-8").splitlines()),
        hidden_size=128,
        num_layers=2,
        intermediate_size=512,
    )


if __name__ == "__main__":
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    save_model(random_model(demo_variant()), output)
