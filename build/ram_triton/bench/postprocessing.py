"""The postprocessor alone, on one core: logits of a full batch to tags."""

from functools import partial

import numpy as np

from ram_triton.bench.figure import Figure, take_turns
from ram_triton.server_code import TagOptions, Vocabulary, postprocess

BATCH = 32
# Of an image, as RAM gives them for a busy picture.
TAGS_THAT_PASS = 20


def measure_postprocessing(
    vocabulary: Vocabulary, repeats: int, random: np.random.Generator
) -> Figure:
    """Return the milliseconds that a batch of 32 images takes, 20 of each one's tags passing."""
    count = len(vocabulary.tags)
    logits = random.normal(-12, 1, (BATCH, count)).astype(np.float32)
    for row in logits:
        row[random.permutation(count)[:TAGS_THAT_PASS]] = random.uniform(8, 12)
    run = partial(postprocess, logits, vocabulary, [TagOptions()] * BATCH)
    return take_turns({"postprocess": run}, repeats, random)["postprocess"]
