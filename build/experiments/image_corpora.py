"""Run the preprocessor over a folder of pictures, and compare it with other decoders.

These are libvips (`pip install pyvips[binary]`, which reads neither BMP nor HEIC) and, where it is
installed, ImageMagick's `convert`. Each decodes in a process of its own with limits, as the
preprocessor does where it is served. The table has a row per format. Listed below it are files that
are refused although the others show them without complaint, and pictures that differ by more than
`FAR` levels on average from all that show them.
"""

import argparse
import multiprocessing
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from ram_triton.cli import run_module
from ram_triton.errors import RamTritonError
from ram_triton.processes import resident_peak
from ram_triton.server_code import ImageError, decoder, encoded_image, image_limits
from rich.console import Console
from rich.progress import track

IMAGE_SIZE = 64
FAR = 8  # levels of 255
SECONDS, MEMORY = 60, 6 * 2**30  # of the other decoders
Pixels = npt.NDArray[np.uint8]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, help="folder of pictures; its folders count too")


def run(arguments: argparse.Namespace) -> None:
    """Print the table, and what differs."""
    paths = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    if not paths:
        raise RamTritonError(f"{arguments.folder}: no files")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest, largest = (0.0, ""), (0, "")
    notes = []
    decoding = decoder.Decoder(IMAGE_SIZE, image_limits())
    others: list[Vips | Convert] = [Vips(), *([Convert()] if shutil.which("convert") else [])]
    for path in track(paths, "decoding", console=Console(stderr=True)):
        data = path.read_bytes()
        started, reason, pixels = time.monotonic(), "", None
        try:
            pixels = decoding.preprocess(data)
        except ImageError as error:
            reason = str(error)
        slowest = max(slowest, (time.monotonic() - started, str(path)))
        if (peak := resident_peak(decoding.process_id)) > largest[0]:
            largest = peak, str(path)
        kind = kind_of(data)
        row = counts[kind]
        row["files"] += 1
        row["accepted" if pixels is not None else "refused"] += 1
        answers = [other.decode(path) for other in others if kind not in other.unread]
        complete = bool(answers) and all(complete for _, complete in answers)
        row["shown by the others"] += complete
        if pixels is None and complete:
            row["refused alone"] += 1
            notes.append(f"refused: {path}: {reason}")
        shown = [expected for expected, _ in answers if expected is not None]
        if pixels is not None and shown:
            off = [float(np.abs(pixels.astype(np.int16) - expected).mean()) for expected in shown]
            if min(off) > FAR:
                row["differing"] += 1
                notes.append(f"differs by {min(off):.0f}: {path}")
    for process in (decoding, *others):
        process.close()
    columns = ("files", "accepted", "refused", "shown by the others", "refused alone", "differing")
    print("| format | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in sorted(counts.items()):
        print(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
    print(f"\nthe others: {', '.join(type(other).__name__ for other in others)}")
    print(f"slowest: {slowest[0]:.1f} s, {slowest[1]}")
    print(f"largest: {largest[0] / 1e6:.0f} MB of the process that decodes, {largest[1]}")
    print("\n".join(notes))


def kind_of(data: bytes) -> str:
    """Return the format that a file's first bytes are of."""
    try:
        return str(encoded_image.format_of(data))
    except ImageError as error:
        return str(error).partition(";")[0].partition(" (")[0]


class Vips:
    """libvips in a process of its own, replaced if it ends or takes too long."""

    unread = ("BMP", "HEIF")  # by the libvips that PyPI has

    def __init__(self) -> None:
        """Start the process."""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def decode(self, path: Path) -> tuple[Pixels | None, bool]:
        """Return the picture as the preprocessor would, and whether that was without complaint.

        None stands for one that is not shown.
        """
        try:
            self._connection.send(str(path))
            if self._connection.poll(SECONDS):
                answer: tuple[Pixels | None, bool] = self._connection.recv()
                return answer
        except (EOFError, OSError):
            pass
        self.close()
        self._start()
        return None, False

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        path = connection.recv()
        pixels = _decode(path, "warning")
        complete = pixels is not None
        connection.send((_decode(path, "none") if pixels is None else pixels, complete))


def _decode(path: str, fail_on: str) -> Pixels | None:
    import pyvips

    try:
        image = pyvips.Image.new_from_file(path, fail_on=fail_on).autorot()
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


class Convert:
    """ImageMagick, a process per picture."""

    unread = ()

    def decode(self, path: Path) -> tuple[Pixels | None, bool]:
        """As `Vips.decode`."""
        square = f"{IMAGE_SIZE}x{IMAGE_SIZE}!"
        steps = "-auto-orient -background white -alpha remove -colorspace sRGB -filter Triangle"
        output = ["-resize", square, "-depth", "8", "RGB:-"]
        try:
            done = subprocess.run(
                ["prlimit", f"--as={MEMORY}", "convert", f"{path}[0]", *steps.split(), *output],
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, False
        if len(done.stdout) != 3 * IMAGE_SIZE**2:
            return None, False
        pixels = np.frombuffer(done.stdout, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
        return pixels, done.returncode == 0 and not done.stderr

    def close(self) -> None:
        """Nothing is left to end."""


if __name__ == "__main__":
    sys.exit(run_module("experiments.image_corpora", sys.modules[__name__]))
