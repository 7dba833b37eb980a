"""Print what the resizer gains: pictures decoded as served, and with Pillow's own, in turn."""

import argparse
import sys
from collections.abc import Callable
from time import thread_time

import numpy as np
from ram_triton.arguments import positive
from ram_triton.bench.measurement import time_interleaved
from ram_triton.bench.preprocessing import NO_LIMITS, PHONE, QUALITY, WEB, encode, make_picture
from ram_triton.cli import run_module
from ram_triton.server_code import preprocess, resizing

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


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
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


def print_row(name: str, encoded: bytes, image_size: int, repeats: int) -> None:
    """Measure one picture at one size."""
    fast = resizing.RESIZER

    def decode(resizer: object) -> np.ndarray:
        resizing.RESIZER = resizer
        try:
            return preprocess(encoded, image_size, NO_LIMITS)
        finally:
            resizing.RESIZER = fast

    ways = {"Pillow": lambda: decode(None), "served": lambda: decode(fast)}
    taken = time_interleaved(ways, repeats, np.random.default_rng(0), clock=processor_time)
    off = np.abs(decode(None).astype(np.int16) - decode(fast))
    ratio = taken["Pillow"].over(taken["served"]).median
    cells = (taken["Pillow"].median, taken["served"].median, ratio, off.mean())
    print(f"| {name} | {image_size} | " + " | ".join(f"{c:.2f}" for c in cells), end="")
    print(f" | {off.max()} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_module("experiments.resizing", sys.modules[__name__]))
