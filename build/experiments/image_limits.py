"""Print what the largest pictures of each format take: processor time and peak memory.

The pictures are as large as `ram_preprocess/config.pbtxt` allows, and made here; each is decoded by
a process of its own, as the server's instances have one.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from ram_triton.arguments import positive
from ram_triton.bench.preprocessing import encode
from ram_triton.cli import run_module
from ram_triton.processes import resident_peak
from ram_triton.server_code import ImageError, ImageLimits, decoder, image_limits

IMAGE_SIZE = 384
TICKS = os.sysconf("SC_CLK_TCK")
# Format, mode and options; a name ends the differences that these do not show.
KINDS = (
    ("JPEG", "RGB", {"quality": 50}),
    ("JPEG", "RGB", {"quality": 50, "progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", {"quality": 50, "progressive": True}),
    ("PNG", "RGB", {"compress_level": 1}),
    ("PNG", "RGBA", {"compress_level": 1}),
    ("PNG", "I;16", {"compress_level": 1}),
    ("PNG", "P", {"compress_level": 1}),
    ("WEBP", "RGB", {"quality": 50, "method": 0}),
    ("WEBP", "RGBA", {"lossless": True, "method": 0, "quality": 0}),
    ("GIF", "P", {}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "I;16", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate"}),
    ("AVIF", "RGB", {"quality": 40, "speed": 10}),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--megapixels", type=positive, help="of each picture (default: what the limits allow)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    limits = image_limits()
    pixels = (arguments.megapixels or limits.max_pixels // 10**6) * 10**6
    print("| picture | MB | processor time | peak memory |\n|---|---|---|---|")
    for name, encoded in pictures(pixels):
        if len(encoded) > limits.max_bytes:
            print(f"| {name} | {len(encoded) / 1e6:.1f} | over max_bytes | |", flush=True)
            continue
        seconds, peak, problem = measure(encoded, limits)
        cells = (name, f"{len(encoded) / 1e6:.1f}", f"{seconds:.2f} s", f"{peak / 1e6:.0f} MB")
        print(f"| {' | '.join(cells)} |{problem}", flush=True)


def pictures(pixels: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and files of pictures with a number of pixels."""
    width = min(10_000, int(pixels**0.5))
    row = np.linspace(0, 255, width).astype(np.uint8)
    grey = Image.fromarray(np.broadcast_to(row, (pixels // width, width)).copy())
    for form, mode, options in KINDS:
        if mode == "I;16":
            image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        elif mode == "F":
            image = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
        else:
            image = grey.convert("RGB").convert(mode) if mode != "P" else grey.convert("P")
        if mode == "RGBA":
            image.putalpha(grey)
        shown = " ".join(f"{key} {value}" for key, value in options.items() if key != "method")
        yield f"{form}, {mode}, {shown}".rstrip(", "), encode(image, form, **options)


def measure(encoded: bytes, limits: ImageLimits) -> tuple[float, int, str]:
    """Return the processor seconds, the process's peak in bytes, and why it refused the picture.

    Ordinary JPEGs go to the process here too.
    """
    one = decoder.Decoder(IMAGE_SIZE, limits)
    process = Path("/proc") / str(one.process_id)
    before, problem = _seconds(process), ""
    try:
        one.ask(encoded)
    except ImageError as error:
        problem = f" refused: {error}"
    except (EOFError, ConnectionError):
        return float("nan"), 0, " ended by its allowance"
    seconds = _seconds(process) - before
    peak = resident_peak(one.process_id)
    one.close()
    return seconds, peak, problem


def _seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    sys.exit(run_module("experiments.image_limits", sys.modules[__name__]))
