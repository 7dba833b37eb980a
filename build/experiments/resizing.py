"""Print what the resizer gains: pictures decoded as served, and with Pillow's own, in turn.

With --tags, print what it changes: of the scores of a folder's pictures, and of the tags that these
have.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time

import numpy as np
from ram_triton.arguments import positive
from ram_triton.bench.measurement import time_interleaved
from ram_triton.bench.preprocessing import NO_LIMITS, PHONE, QUALITY, WEB, encode, make_picture
from ram_triton.cli import run_module
from ram_triton.engines.openvino import openvino_tagger
from ram_triton.engines.tagger import tag_all
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.layout import ENCODER, HEAD, VOCABULARY
from ram_triton.repository.repository import Repository
from ram_triton.server_code import Vocabulary, preprocess, resizing, sigmoid

IMAGE_SIZES = (224, 384)
PICTURES = {"JPEG": ((640, 480), WEB, PHONE), "PNG": ((640, 480), WEB)}


def processor_time(run: Callable[[], object], times: int) -> float:
    """Return this thread's seconds: what else the machine does is not counted."""
    started = thread_time()
    for _ in range(times):
        run()
    return thread_time() - started


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--repeats", type=positive, default=15, help="runs of each (%(default)s)")
    parser.add_argument(
        "--tags",
        nargs=2,
        type=Path,
        metavar=("REPOSITORY", "IMAGES"),
        help="instead tag the pictures of a folder in both ways, and compare",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or what becomes of tags."""
    if arguments.tags:
        print_changes(*arguments.tags)
        return
    print(
        "| picture | result | Pillow's resize, ms | served, ms | times faster | mean difference | "
        "largest |\n|" + "---|" * 7
    )
    for form, sizes in PICTURES.items():
        for width, height in sizes:
            options = {"quality": QUALITY} if form == "JPEG" else {"compress_level": 6}
            encoded = encode(make_picture(width, height), form, **options)
            for image_size in IMAGE_SIZES:
                print_row(f"{width} x {height} {form}", encoded, image_size, arguments.repeats)


def print_changes(root: Path, images: Path) -> None:
    """Tag pictures that each of the resizers has squashed, in float32, and compare."""
    image_size = Repository(root).require_manifest()["variant"]["image_size"]
    tagger = openvino_tagger(root / ENCODER, root / HEAD)
    thresholds = Vocabulary.load(root / VOCABULARY).thresholds
    served = sigmoid(tag_all(tagger, picture_batches(images, image_size)))
    with resizer(None):
        pillow = sigmoid(tag_all(tagger, picture_batches(images, image_size)))
    flipped = (served > thresholds) != (pillow > thresholds)
    near = np.abs(pillow - thresholds)[flipped]
    print(
        f"{len(served)} pictures, {(pillow > thresholds).sum()} tags: scores differ by at most "
        f"{np.abs(served - pillow).max():.4f}, {flipped.sum()} tags come or go, all within "
        f"{near.max(initial=0):.4f} of their thresholds"
    )


@contextmanager
def resizer(other: object) -> Iterator[None]:
    """Have pictures squashed by another resizer; None is Pillow."""
    served = resizing.RESIZER
    resizing.RESIZER = other
    try:
        yield
    finally:
        resizing.RESIZER = served


def print_row(name: str, encoded: bytes, image_size: int, repeats: int) -> None:
    """Measure one picture at one size."""
    fast = resizing.RESIZER

    def decode(chosen: object) -> np.ndarray:
        with resizer(chosen):
            return preprocess(encoded, image_size, NO_LIMITS)

    ways = {"Pillow": lambda: decode(None), "served": lambda: decode(fast)}
    taken = time_interleaved(ways, repeats, np.random.default_rng(0), clock=processor_time)
    off = np.abs(decode(None).astype(np.int16) - decode(fast))
    ratio = taken["Pillow"].over(taken["served"]).median
    cells = (taken["Pillow"].median, taken["served"].median, ratio, off.mean())
    print(f"| {name} | {image_size} | " + " | ".join(f"{c:.2f}" for c in cells), end="")
    print(f" | {off.max()} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_module("experiments.resizing", sys.modules[__name__]))
