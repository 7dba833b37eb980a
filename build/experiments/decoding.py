"""Print what decoding JPEGs at each margin and size saves and costs, to choose `DRAFT_MARGIN` by.

`make bench` measures what is served. Here too the pictures are made; JPEGs of your own, in a
folder, are measured beside them.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from ram_triton.arguments import positive
from ram_triton.bench.measurement import time_interleaved
from ram_triton.bench.preprocessing import NO_LIMITS, QUALITY, encode, make_picture
from ram_triton.cli import run_module
from ram_triton.server_code import DRAFT_MARGIN, open_image, squash

IMAGE_SIZES = (224, 384)
MARGINS = (1, 1.5, 2, 3)
# The two smaller heights are worst cases, where a scale leaves just what a margin of 1.5 asks for:
# 1344 / 4 / 224 and 2304 / 4 / 384.
SIZES = {"12 MP": (4000, 3000), "7 MP": (3072, 2304), "2.4 MP": (1792, 1344)}
FULL_SIZE = "JPEG, full size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, nargs="?", help="folder of JPEGs to measure too")
    parser.add_argument("--repeats", type=positive, default=9, help="runs of each (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print(
        f"DRAFT_MARGIN is {DRAFT_MARGIN}. Milliseconds are the median of {arguments.repeats} runs "
        "of decoding and resizing;\ndifferences are to the JPEG's full size, in levels of 0 to 255."
        "\n\n| picture | MB | result | decoded as | scale | ms | times faster | mean difference"
        " | largest |\n|" + " --- |" * 9
    )
    for picture, jpeg, png in encoded_pictures(arguments.folder):
        for image_size in IMAGE_SIZES:
            print_rows(picture, jpeg, png, image_size, arguments.repeats)


def encoded_pictures(folder: Path | None) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each picture's name, its JPEG and the same picture as PNG."""
    for name, (width, height) in SIZES.items():
        picture = make_picture(width, height)
        png = encode(picture, "PNG", compress_level=1)
        yield name, encode(picture, "JPEG", quality=QUALITY), png
        if name == "12 MP":
            progressive = encode(picture, "JPEG", quality=QUALITY, progressive=True)
            yield f"{name}, progressive", progressive, png
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with Image.open(path) as picture:
                yield path.name, path.read_bytes(), encode(picture, "PNG", compress_level=1)


def decode(encoded: bytes, image_size: int, margin: float | None) -> tuple[np.ndarray, int]:
    """Return the pixels as int16, and the width that was decoded."""
    image = open_image(encoded, NO_LIMITS)
    square = squash(image, image_size, margin)
    return np.asarray(square, np.int16), image.width


def print_rows(picture: str, jpeg: bytes, png: bytes, image_size: int, repeats: int) -> None:
    """Measure one picture at one size, and print one row per way to decode it."""
    ways = {FULL_SIZE: (jpeg, None), "PNG": (png, None)}
    ways |= {f"JPEG, margin {margin}": (jpeg, margin) for margin in MARGINS}
    runs = {
        name: partial(decode, encoded, image_size, margin)
        for name, (encoded, margin) in ways.items()
    }
    taken = time_interleaved(runs, repeats, np.random.default_rng(0))
    full_pixels, full_width = runs[FULL_SIZE]()
    for name, (encoded, _) in ways.items():
        pixels, width = runs[name]()
        difference = np.abs(pixels - full_pixels)
        cells = (
            picture,
            f"{len(encoded) / 1e6:.1f}",
            image_size,
            name,
            f"1/{round(full_width / width)}",
            f"{taken[name].median:.1f}",
            f"{taken[FULL_SIZE].median / taken[name].median:.2f}",
            f"{difference.mean():.2f}",
            difference.max(),
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    sys.exit(run_module("experiments.decoding", sys.modules[__name__]))
