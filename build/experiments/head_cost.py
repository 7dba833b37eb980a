"""Print what labels and heat maps cost beside the fixed head; with a repository, in requests too.

The head has its full size (145 image tokens, 512 wide, two layers, 4,585 tags) and random weights;
the engine is the CPU profile's. The requests are of single images, with and without maps,
alternating.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from ram_client import RamClient
from ram_triton.arguments import positive
from ram_triton.bench.measurement import Run, markdown_table, time_interleaved
from ram_triton.cli import run_module
from ram_triton.engines.openvino import SERVED, CompiledGraph
from ram_triton.graphs.export import export_head, export_maps, export_open_head
from ram_triton.model.checkpoint import random_model
from ram_triton.model.variant import published_variant
from ram_triton.parity.pictures import picture_files
from ram_triton.repository.layout import DEMO_IMAGES
from ram_triton.server import TritonServer

TAGS = 4585
LABELS = (10, 214, 1000, TAGS)  # 214: OpenImages' tags in RAM's paper
MAPS = (1, 8, 32, 256)  # tags of an image
SECONDS = 0.4  # of requests per run
FIXED = "the head"
PLAIN, WITH_MAPS = "tags", "tags and maps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--repository", type=Path, metavar="DIR", help="model repository to serve, for requests")
    add("--runs", type=positive, default=10, help="of each (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory(prefix="ram-heads-") as folder:
        graphs = compile_graphs(Path(folder))
    print_table("graph", graphs, FIXED, arguments.runs)
    if arguments.repository:
        image = picture_files(DEMO_IMAGES)[0].read_bytes()
        with TritonServer(arguments.repository) as server, RamClient(server.grpc) as client:
            requests = {
                PLAIN: partial(client.tag, image),
                WITH_MAPS: partial(client.tag, image, where=True),
            }
            print()
            print_table("request", requests, PLAIN, arguments.runs, SECONDS)


def print_table(title: str, ways: dict[str, Run], base: str, runs: int, seconds: float = 0) -> None:
    """Time each way, for some seconds per run, and print a row of it beside one of them."""
    taken = time_interleaved(ways, runs, np.random.default_rng(0), seconds=seconds)
    rows = [(name, one, one.over(taken[base])) for name, one in taken.items()]
    print(*markdown_table((title, "ms", f"of '{base}'"), rows), sep="\n", flush=True)


def compile_graphs(folder: Path) -> dict[str, Run]:
    """Return what runs the head, the one with each number of labels, and each number of maps."""
    small = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    # The encoder is not needed, and small.
    model = random_model(replace(published_variant("swin_l", 384, TAGS), **small))
    exports = {"fixed.onnx": export_head, "open.onnx": export_open_head, "maps.onnx": export_maps}
    for name, export in exports.items():
        export(model, folder / name)
    fixed, opened, maps = (CompiledGraph(folder / name, SERVED) for name in exports)
    shape = 1, model.variant.num_tokens, model.variant.image_width
    embeds = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    labels = model.label_embed.detach().numpy()
    graphs: dict[str, Run] = {FIXED: partial(fixed, image_embeds=embeds)}
    for count in LABELS:
        chosen = labels[:count].copy()
        graphs[f"with {count} labels"] = partial(opened, image_embeds=embeds, label_embeds=chosen)
    for count in MAPS:
        ids = np.arange(count, dtype=np.int32)[None] % TAGS
        graphs[f"maps of {count} tags"] = partial(maps, image_embeds=embeds, tag_ids=ids)
    return graphs


if __name__ == "__main__":
    sys.exit(run_module("experiments.head_cost", sys.modules[__name__]))
