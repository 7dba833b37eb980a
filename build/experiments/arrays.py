"""Measure a client that has pictures as arrays: encoded and sent, or sent as pixels, in turn.

Client and server share the machine's cores, as they do if one process decodes a video and asks a
server beside it. The client's own part is its processor time, of all threads.
"""

import argparse
import sys
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from ram_client import RamClient
from ram_client.concurrency import run_in_order
from ram_client.image import encode
from ram_client.pixels import squash
from ram_client.protocol import SIZE_SUFFIX, read_image_size
from ram_triton.arguments import add_repository, positive
from ram_triton.bench.measurement import Measurement, interleave, markdown_table
from ram_triton.bench.preprocessing import QUALITY, make_picture
from ram_triton.bench.preprocessing import encode as encode_picture
from ram_triton.cli import run_module
from ram_triton.server import TritonServer
from tritonclient.grpc import InferenceServerClient

Frame = npt.NDArray[np.uint8]

SIZES = ((640, 480), (1920, 1080))
CONCURRENCY = 8
PNG, JPEG, PIXELS = "PNG", f"JPEG, quality {QUALITY}", "pixels"
CLIENT = "client's processor time per image, ms"
HEAD = ("frame", "sent as", "kB", "images/s", "times PNG's", CLIENT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")
    add = parser.add_argument
    add("--rounds", type=positive, default=5, help="rounds per way (default: %(default)s)")
    add("--images", type=positive, default=24, help="images per round (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    with TritonServer(arguments.repository) as server, RamClient(server.grpc) as client:
        rows = []
        for width, height in SIZES:
            frame = np.asarray(make_picture(width, height))
            rows += measure(client, frame, arguments.rounds, arguments.images)
    print(*markdown_table(HEAD, rows), sep="\n")


def measure(client: RamClient, frame: Frame, rounds: int, images: int) -> list[tuple[Any, ...]]:
    """Return a frame's rows of the table."""

    def to_jpeg(frame: Frame) -> bytes:
        return encode_picture(PIL.Image.fromarray(frame), "JPEG", quality=QUALITY)

    ways: dict[str, Callable[[Frame], object]] = {
        PNG: lambda frame: client.tag(encode(frame)),
        JPEG: lambda frame: client.tag(to_jpeg(frame)),
        PIXELS: client.tag,
    }
    ways[PIXELS](frame)  # asks for the size
    sent = {PNG: len(encode(frame)), JPEG: len(to_jpeg(frame))}
    with InferenceServerClient(client.server) as triton:
        metadata = triton.get_model_metadata(client.model + SIZE_SUFFIX)
    sent[PIXELS] = squash(frame, read_image_size(metadata)).nbytes
    rates: dict[str, list[float]] = {way: [] for way in ways}
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for number, way in interleave(list(ways), rounds + 1, np.random.default_rng(0)):
        start, used = perf_counter(), process_time()
        for _ in run_in_order(ways[way], (frame for _ in range(images)), CONCURRENCY):
            pass
        if number > 1:  # the first warms up
            rates[way].append(images / (perf_counter() - start))
            costs[way].append(1000 * (process_time() - used) / images)
    found = {way: Measurement(tuple(values)) for way, values in rates.items()}
    name = f"{frame.shape[1]} x {frame.shape[0]}"
    return [
        (name, way, round(sent[way] / 1000), rate, rate.over(found[PNG]), Measurement(tuple(cost)))
        for (way, rate), cost in zip(found.items(), costs.values(), strict=True)
    ]


if __name__ == "__main__":
    sys.exit(run_module("experiments.arrays", sys.modules[__name__]))
