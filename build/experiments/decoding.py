"""Print what decoding JPEGs at each margin and size saves and costs: what `DRAFT_MARGIN` rests on.

`build/bench.py` measures what is served. Here the pictures are made too; JPEGs of your own, in a
folder, are measured beside them.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from ram_triton.bench.decoding import LIMITS
from ram_triton.bench.photographs import encode, make_picture
from ram_triton.server_code import DRAFT_MARGIN, open_image, squash

IMAGE_SIZES = (224, 384)
MARGINS = (1, 1.5, 2, 3)
# The two smaller heights are worst cases, where a scale leaves no more than a margin of 1.5 asks:
# 1344 / 4 / 224 and 2304 / 4 / 384.
SIZES = {"12 MP": (4000, 3000), "7 MP": (3072, 2304), "2.4 MP": (1792, 1344)}


def encoded_pictures(folder: Path | None) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each picture's name, its JPEG and the same picture as PNG."""
    for name, (width, height) in SIZES.items():
        picture = make_picture(width, height)
        png = encode(picture, "PNG", compress_level=1)
        yield name, encode(picture, "JPEG", quality=90), png
        if name == "12 MP":
            yield (
                f"{name}, progressive",
                encode(picture, "JPEG", quality=90, progressive=True),
                png,
            )
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with Image.open(path) as picture:
                yield path.name, path.read_bytes(), encode(picture, "PNG", compress_level=1)


def decode(encoded: bytes, image_size: int, margin: float | None) -> tuple[np.ndarray, float, int]:
    """Return the pixels as int16, the seconds they took, and the width that was decoded."""
    start = time.perf_counter()
    image = open_image(encoded, LIMITS)
    square = squash(image, image_size, margin)
    return np.asarray(square, np.int16), time.perf_counter() - start, image.width


def print_rows(picture: str, jpeg: bytes, png: bytes, image_size: int, repeats: int) -> None:
    """Measure one picture at one size, and print a row for each way to decode it."""
    ways = {"JPEG, full size": (jpeg, None), "PNG": (png, None)}
    ways |= {f"JPEG, margin {margin}": (jpeg, margin) for margin in MARGINS}
    # The ways take turns, so that whatever else the machine does slows all of them alike.
    runs = [
        {name: decode(encoded, image_size, margin) for name, (encoded, margin) in ways.items()}
        for _ in range(repeats)
    ]
    seconds = {name: np.median([run[name][1] for run in runs]) for name in ways}
    full_pixels, _, full_width = runs[0]["JPEG, full size"]
    for name, (encoded, _) in ways.items():
        pixels, _, width = runs[0][name]
        difference = np.abs(pixels - full_pixels)
        cells = (
            picture,
            f"{len(encoded) / 1e6:.1f}",
            image_size,
            name,
            f"1/{round(full_width / width)}",
            f"{1000 * seconds[name]:.1f}",
            f"{seconds['JPEG, full size'] / seconds[name]:.2f}",
            f"{difference.mean():.2f}",
            difference.max(),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of JPEGs to measure too")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each (default: 9)")
    arguments = parser.parse_args()
    print(
        f"DRAFT_MARGIN is {DRAFT_MARGIN}. Milliseconds are the median of {arguments.repeats} runs "
        "of decoding and resizing;\ndifferences are to the JPEG's full size, in levels of 0 to 255."
        "\n\n| picture | MB | result | decoded as | scale | ms | times faster | mean difference"
        " | largest |\n|" + " --- |" * 9
    )
    for picture, jpeg, png in encoded_pictures(arguments.folder):
        for image_size in IMAGE_SIZES:
            print_rows(picture, jpeg, png, image_size, arguments.repeats)


if __name__ == "__main__":
    main()
