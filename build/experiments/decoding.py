"""Print what decoding costs each way: JPEGs at each margin, pictures with Pillow's own resizer.

The margins are for choosing `DRAFT_MARGIN`: JPEGs that are made here and, in a folder, your own,
beside their full size. Then pictures are decoded as served, and with Pillow's resizer. Milliseconds
are processor time, of decoding and resizing; differences are in levels of 0 to 255. `make bench`
measures what is served.

With --tags, print what the resizer changes: of the scores of a folder's pictures, and of the tags
that these have.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from time import thread_time

import numpy as np
from PIL import Image
from ram_triton.arguments import positive
from ram_triton.bench.measurement import Run, time_interleaved
from ram_triton.bench.preprocessing import NO_LIMITS, PHONE, QUALITY, WEB, encode, make_picture
from ram_triton.cli import run_module
from ram_triton.engines.openvino import openvino_tagger
from ram_triton.engines.tagger import tag_all
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.layout import ENCODER, HEAD, VOCABULARY
from ram_triton.repository.repository import Repository
from ram_triton.server_code import (
    DRAFT_MARGIN,
    Vocabulary,
    open_image,
    resizing,
    sigmoid,
    squash,
)

IMAGE_SIZES = (224, 384)
MARGINS = (1, 1.5, 2, 3)
# The two smaller heights are worst cases, where a scale leaves just what a margin of 1.5 asks for:
# 1344 / 4 / 224 and 2304 / 4 / 384.
SIZES = {"12 MP": PHONE, "7 MP": (3072, 2304), "2.4 MP": (1792, 1344)}
RESIZED = {"JPEG": ((640, 480), WEB, PHONE), "PNG": ((640, 480), WEB)}
OPTIONS = {"JPEG": {"quality": QUALITY}, "PNG": {"compress_level": 6}}
COLUMNS = "picture", "MB", "result", "decoded as", "scale", "ms", "times faster", "mean difference"

# An encoded picture, the margin of its reduced scale (None: full size), and the resizer.
Way = tuple[bytes, float | None, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("folder", type=Path, nargs="?", help="folder of JPEGs to measure too")
    add("--repeats", type=positive, default=9, help="runs of each (%(default)s)")
    add(
        "--tags",
        nargs=2,
        type=Path,
        metavar=("REPOSITORY", "IMAGES"),
        help="instead tag the pictures of a folder with both resizers, and compare",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or what becomes of tags."""
    if arguments.tags:
        print_changes(*arguments.tags)
        return
    print(f"DRAFT_MARGIN is {DRAFT_MARGIN}\n\n| {' | '.join(COLUMNS)} | largest |\n|{'---|' * 9}")
    for picture, ways in chain(margins(arguments.folder), resizers()):
        for image_size in IMAGE_SIZES:
            print_rows(picture, ways, image_size, arguments.repeats)


def margins(folder: Path | None) -> Iterator[tuple[str, dict[str, Way]]]:
    """Yield JPEGs, by their names, at full size, as PNG, and at each margin."""

    def ways(jpeg: bytes, picture: Image.Image) -> dict[str, Way]:
        png = encode(picture, "PNG", compress_level=1)
        served = resizing.RESIZER
        found: dict[str, Way] = {
            "JPEG, full size": (jpeg, None, served),
            "PNG": (png, None, served),
        }
        return found | {f"JPEG, margin {margin}": (jpeg, margin, served) for margin in MARGINS}

    for name, (width, height) in SIZES.items():
        picture = make_picture(width, height)
        yield name, ways(encode(picture, "JPEG", quality=QUALITY), picture)
        if name == "12 MP":
            jpeg = encode(picture, "JPEG", quality=QUALITY, progressive=True)
            yield f"{name}, progressive", ways(jpeg, picture)
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with Image.open(path) as picture:
                yield path.name, ways(path.read_bytes(), picture)


def resizers() -> Iterator[tuple[str, dict[str, Way]]]:
    """Yield pictures, by their sizes and formats, with Pillow's resizer and as served."""
    for form, sizes in RESIZED.items():
        for width, height in sizes:
            encoded = encode(make_picture(width, height), form, **OPTIONS[form])
            yield (
                f"{width} x {height} {form}",
                {
                    "Pillow's resize": (encoded, DRAFT_MARGIN, None),
                    "served": (encoded, DRAFT_MARGIN, resizing.RESIZER),
                },
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


def decode(image_size: int, way: Way) -> tuple[np.ndarray, int]:
    """Return the pixels as int16, and the width that was decoded."""
    encoded, margin, chosen = way
    image = open_image(encoded, NO_LIMITS)
    with resizer(chosen):
        square = squash(image, image_size, margin)
    return np.asarray(square, np.int16), image.width


def processor_time(run: Run, times: int) -> float:
    """Return this thread's seconds: what else the machine does is not counted."""
    started = thread_time()
    for _ in range(times):
        run()
    return thread_time() - started


def print_rows(picture: str, ways: dict[str, Way], image_size: int, repeats: int) -> None:
    """Measure one picture at one size, and print a row for each way beside the first one."""
    runs = {name: partial(decode, image_size, way) for name, way in ways.items()}
    taken = time_interleaved(runs, repeats, np.random.default_rng(0), clock=processor_time)
    first = next(iter(ways))
    first_pixels, _ = runs[first]()
    for name, (encoded, *_) in ways.items():
        pixels, width = runs[name]()
        difference = np.abs(pixels - first_pixels)
        cells = (
            picture,
            f"{len(encoded) / 1e6:.1f}",
            image_size,
            name,
            f"1/{round(open_image(encoded, NO_LIMITS).width / width)}",
            f"{taken[name].median:.2f}",
            f"{taken[first].over(taken[name]).median:.2f}",
            f"{difference.mean():.2f}",
            difference.max(),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


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


if __name__ == "__main__":
    sys.exit(run_module("experiments.decoding", sys.modules[__name__]))
