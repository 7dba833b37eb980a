"""Run the preprocessor over a folder of pictures, and compare it with libvips: a table by format.

libvips comes from PyPI: `pip install pyvips[binary]`. It decodes in a process of its own that has a
limit of memory; the preprocessor in its own, as served. Files that only one of both decodes, and
pictures that differ by more than `FAR` levels on average, are listed.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image
from ram_triton.cli import run_module
from ram_triton.errors import RamTritonError
from ram_triton.server_code import ImageError, decoder, encoded_image, image_limits

IMAGE_SIZE = 64
FAR = 8  # levels of 255
SECONDS, MEMORY = 60, 6 * 2**30  # of libvips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="folder of pictures; its folders count too")


def run(arguments: argparse.Namespace) -> None:
    """Print the table, and what differs."""
    paths = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    if not paths:
        raise RamTritonError(f"{arguments.folder}: no files")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest = (0.0, "")
    notes = []
    decoding, other = decoder.Decoder(IMAGE_SIZE, image_limits()), Vips()
    for path in paths:
        data = path.read_bytes()
        started, reason, pixels = time.monotonic(), "", None
        try:
            pixels = decoding.preprocess(data)
        except ImageError as error:
            reason = str(error)
        slowest = max(slowest, (time.monotonic() - started, str(path)))
        expected = other.decode(path)
        row = counts[kind_of(data)]
        row["files"] += 1
        row["accepted" if pixels is not None else "refused"] += 1
        if pixels is None and expected is not None:
            row["shown by libvips"] += 1
            notes.append(f"refused: {path}: {reason}")
        elif pixels is not None and expected is None:
            row["refused by libvips"] += 1
        elif pixels is not None and expected is not None:
            off = float(np.abs(pixels.astype(np.int16) - expected).mean())
            if off > FAR:
                row["differing"] += 1
                notes.append(f"differs by {off:.0f}: {path}")
    decoding.close()
    other.close()
    columns = (
        "files",
        "accepted",
        "refused by libvips",
        "differing",
        "refused",
        "shown by libvips",
    )
    print("| format | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in sorted(counts.items()):
        print(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
    print(f"\nslowest: {slowest[0]:.1f} s, {slowest[1]}")
    print("\n".join(notes))


def kind_of(data: bytes) -> str:
    """Return the format that a file's first bytes are of."""
    try:
        return str(encoded_image.format_of(data))
    except ImageError as error:
        return str(error).partition(";")[0].partition(" (")[0]


class Vips:
    """libvips in a process of its own, replaced if it ends or takes too long."""

    def __init__(self) -> None:
        """Start the process."""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def decode(self, path: Path) -> np.ndarray | None:
        """Return the picture as the preprocessor would; None if libvips does not show it."""
        try:
            self._connection.send(str(path))
            if self._connection.poll(SECONDS):
                answer: np.ndarray | None = self._connection.recv()
                return answer
        except (EOFError, OSError):
            pass
        self.close()
        self._start()
        return None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        connection.send(_decode(connection.recv()))


def _decode(path: str) -> np.ndarray | None:
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path, fail_on="none").autorot()
        if image.width * image.height > 100_000_000:
            return None
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        pixels = image.cast("uchar").numpy()
    except (pyvips.Error, MemoryError):
        return None
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, 2)
    square = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    return np.asarray(square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


if __name__ == "__main__":
    sys.exit(run_module("experiments.image_corpora", sys.modules[__name__]))
