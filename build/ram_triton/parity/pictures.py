"""Pixels to compare taggers with: a folder's pictures, and noise."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ram_triton.engines.tagger import Pixels
from ram_triton.errors import PictureError
from ram_triton.files import IMAGE_SUFFIXES
from ram_triton.server_code import ImageError, preprocess

BATCH_SIZES = (1, 2, 3)  # in turn: a graph must not depend on the batch that it was made with
NOISE_BATCHES = 2


def picture_files(folder: Path) -> list[Path]:
    """Return the folder's pictures, sorted by name.

    Raises:
        PictureError: there are none.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise PictureError(f"{folder}: contains no images ({suffixes}) to compare with")
    return files


def file_batches(folder: Path, sizes: Sequence[int] = BATCH_SIZES) -> Iterator[list[Path]]:
    """Yield all of a folder's pictures, a few at a time: as many as `sizes` specify, in turn.

    Raises:
        PictureError: there are none.
    """
    files = iter(picture_files(folder))
    for size in itertools.cycle(sizes):
        batch = list(itertools.islice(files, size))
        if not batch:
            return
        yield batch


def picture_batches(
    folder: Path, image_size: int, sizes: Sequence[int] = BATCH_SIZES
) -> Iterator[Pixels]:
    """Yield the pixels of all of a folder's pictures, (B, size, size, 3) uint8.

    Raises:
        PictureError: there are none, or one cannot be read.
    """
    for batch in file_batches(folder, sizes):
        yield np.stack([_pixels(path, image_size) for path in batch])


def noise_batches(image_size: int) -> Iterator[Pixels]:
    """Yield random pixels, (B, size, size, 3) uint8: every value is possible at every place."""
    random = np.random.default_rng(0)
    for size in BATCH_SIZES[:NOISE_BATCHES]:
        yield random.integers(0, 256, (size, image_size, image_size, 3), np.uint8)


def _pixels(path: Path, image_size: int) -> Pixels:
    try:
        return preprocess(path.read_bytes(), image_size)
    except (ImageError, OSError) as error:
        raise PictureError(f"{path}: cannot be used to compare ({error})") from error
