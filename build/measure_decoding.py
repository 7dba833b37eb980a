"""Print what decoding JPEGs at a reduced scale saves and costs, beside full size and PNG.

The pictures are made here, with the statistics of photographs: amplitudes that fall with
frequency, edges at all sizes, sensor noise, a lens's softness. JPEGs of your own, in a folder, are
measured too.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PREPROCESS = Path(__file__).resolve().parents[1] / "model_repository" / "ram_preprocess" / "1"
sys.path.append(str(PREPROCESS))

from preprocess import DRAFT_MARGIN, Limits, open_image, squash  # noqa: E402

IMAGE_SIZES = (224, 384)
MARGINS = (1, 1.5, 2, 3)
# The two smaller heights are worst cases, where a scale leaves no more than a margin of 1.5 asks:
# 1344 / 4 / 224 and 2304 / 4 / 384.
SIZES = {"12 MP": (4000, 3000), "7 MP": (3072, 2304), "2.4 MP": (1792, 1344)}
LIMITS = Limits(max_bytes=2**31, max_pixels=2**31)


def make_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Make an RGB picture: noise of amplitude 1/frequency, shapes of all sizes, sensor noise."""
    random = np.random.default_rng(seed)
    grey = _one_over_f(random, width, height)
    tints = np.stack([_one_over_f(random, width, height) for _ in range(3)], -1)
    smooth = 120 + 40 * grey[..., None] + 15 * tints
    picture = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(150):
        # As many on each scale: what things at all distances look like.
        radius = width * 10 ** random.uniform(-3, -1)
        x, y = random.uniform(0, width), random.uniform(0, height)
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.regular_polygon((x, y, radius), random.integers(3, 12).item(), fill=colour)
    noise = random.normal(0, 2, (height, width, 3)).astype(np.float32)
    noisy = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(0.8))  # as optics and a sensor's colour filter do


def _one_over_f(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return (height, width) float32 of mean 0 and deviation 1, its amplitudes 1/frequency."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width)))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(x, y)
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency, (height, width))
    return (values / values.std()).astype(np.float32)


def encoded_pictures(folder: Path | None) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each picture's name, its JPEG and the same picture as PNG."""
    for name, (width, height) in SIZES.items():
        picture = make_picture(width, height)
        png = _encode(picture, "PNG", compress_level=1)
        yield name, _encode(picture, "JPEG", quality=90), png
        if name == "12 MP":
            yield (
                f"{name}, progressive",
                _encode(picture, "JPEG", quality=90, progressive=True),
                png,
            )
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with Image.open(path) as picture:
                yield path.name, path.read_bytes(), _encode(picture, "PNG", compress_level=1)


def _encode(picture: Image.Image, image_format: str, **options: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


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
