"""Print what heat maps cost: their graph beside the head's; requests with and without, alternating.

The head has its full size (145 image tokens, 512 wide, two layers, 4,585 tags) and random weights;
the engine is the CPU profile's. The requests are of single images, to a repository that is served.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ram_client import RamClient
from ram_triton.arguments import add_repository, positive
from ram_triton.bench.measurement import markdown_table, time_interleaved
from ram_triton.cli import run_module
from ram_triton.engines.openvino import SERVED, CompiledGraph
from ram_triton.graphs.export import export_head, export_maps
from ram_triton.parity.pictures import picture_files
from ram_triton.repository.layout import DEMO_IMAGES
from ram_triton.server import TritonServer

from experiments.label_count import TAGS, random_embeds, random_head

COUNTS = (1, 8, 32, 256)  # tags of an image
HEAD = "the head"
PLAIN, WITH_MAPS = "tags", "tags and maps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add_repository(parser, "model repository to serve")
    add("--runs", type=positive, default=10, help="of each (default: %(default)s)")
    add("--tags", type=positive, default=TAGS, help="of the head (default: %(default)s)")
    add("--images", type=positive, default=20, help="per run (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print both tables."""
    with tempfile.TemporaryDirectory(prefix="ram-maps-") as folder:
        graphs = compile_graphs(Path(folder), arguments.tags)
    taken = time_interleaved(graphs, arguments.runs, np.random.default_rng(0))
    rows = [(name, each, each.over(taken[HEAD])) for name, each in taken.items()]
    print("\n".join(markdown_table(("graph", "ms", "of the head's"), rows)), flush=True)
    image = picture_files(DEMO_IMAGES)[0].read_bytes()
    with TritonServer(arguments.repository) as server, RamClient(server.grpc) as client:
        ways: dict[str, Callable[[], object]] = {
            PLAIN: partial(ask, client, image, arguments.images, False),
            WITH_MAPS: partial(ask, client, image, arguments.images, True),
        }
        asked = time_interleaved(ways, arguments.runs, np.random.default_rng(0))
    each = {name: one.map(lambda ms: ms / arguments.images) for name, one in asked.items()}
    found = [(name, one, one.over(each[PLAIN])) for name, one in each.items()]
    print("\n" + "\n".join(markdown_table(("request", "ms", f"of '{PLAIN}'"), found)))


def compile_graphs(folder: Path, tags: int) -> dict[str, Callable[[], object]]:
    """Return what runs the head, and the maps of each number of tags."""
    model = random_head(tags)
    export_head(model, folder / "head.onnx")
    export_maps(model, folder / "maps.onnx")
    head, maps = (CompiledGraph(folder / name, SERVED) for name in ("head.onnx", "maps.onnx"))
    image_embeds = random_embeds(model)
    ids = {count: np.arange(count, dtype=np.int32)[None] % tags for count in COUNTS}
    return {HEAD: partial(head, image_embeds=image_embeds)} | {
        f"maps of {count} tags": partial(maps, image_embeds=image_embeds, tag_ids=chosen)
        for count, chosen in ids.items()
    }


def ask(client: RamClient, image: bytes, times: int, where: bool) -> None:
    """Have an image tagged, one request after the other."""
    for _ in range(times):
        client.tag(image, where=where)


if __name__ == "__main__":
    sys.exit(run_module("experiments.map_cost", sys.modules[__name__]))
