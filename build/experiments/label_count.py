"""Print what labels cost: the head that takes them with each request, beside the fixed one.

The head has its full size (145 image tokens, 512 wide, two layers) and random weights; the engine
is the CPU profile's.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ram_triton.arguments import positive
from ram_triton.bench.measurement import markdown_table, time_interleaved
from ram_triton.cli import run_module
from ram_triton.engines.openvino import SERVED, CompiledGraph
from ram_triton.graphs.export import export_head, export_open_head
from ram_triton.model.checkpoint import random_model
from ram_triton.model.ram import RAM
from ram_triton.model.variant import published_variant

COUNTS = (10, 214, 1000, 4585)  # 214: OpenImages' tags in RAM's paper
TAGS = 4585
FIXED = "fixed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--runs", type=positive, default=10, help="runs per number of labels (default: %(default)s)"
    )
    add("--tags", type=positive, default=TAGS, help="tags of the fixed head (default: %(default)s)")
    add("--counts", type=positive, nargs="+", default=COUNTS, help="default: 10 214 1000 4585")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory(prefix="ram-labels-") as folder:
        heads = compile_heads(Path(folder), arguments.tags, arguments.counts)
    taken = time_interleaved(heads, arguments.runs, np.random.default_rng(0))
    fixed = taken[FIXED]
    rows: list[tuple[object, ...]] = [(f"{FIXED}, {arguments.tags:,}", "", fixed, 1)]
    for count in arguments.counts:
        share = f"{count / arguments.tags:.3f}"
        rows.append((f"{count:,}", share, taken[str(count)], taken[str(count)].over(fixed)))
    head = ("labels", f"share of {arguments.tags:,}", "ms", "of the fixed head's")
    print("\n".join(markdown_table(head, rows)))


def random_head(tags: int) -> RAM:
    """Return a model whose head has its full size. The encoder is not needed, and small."""
    small = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    return random_model(replace(published_variant("swin_l", 384, tags), **small))


def random_embeds(model: RAM) -> NDArray[np.float32]:
    """Return embeddings of one image that are noise, (1, 1 + tokens, width)."""
    shape = 1, model.variant.num_tokens, model.variant.image_width
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def compile_heads(folder: Path, tags: int, counts: list[int]) -> dict[str, Callable[[], object]]:
    """Return what runs the fixed head, and the other one with each number of labels."""
    model = random_head(tags)
    export_head(model, folder / "fixed.onnx")
    export_open_head(model, folder / "open.onnx")
    fixed, opened = (CompiledGraph(folder / name, SERVED) for name in ("fixed.onnx", "open.onnx"))
    image_embeds = random_embeds(model)
    labels = model.label_embed.detach().numpy()

    def run_open(count: int) -> Callable[[], object]:
        return partial(opened, image_embeds=image_embeds, label_embeds=labels[:count].copy())

    return {FIXED: partial(fixed, image_embeds=image_embeds)} | {
        str(c): run_open(c) for c in counts
    }


if __name__ == "__main__":
    sys.exit(run_module("experiments.label_count", sys.modules[__name__]))
