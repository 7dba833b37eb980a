"""Image files as training and evaluation see them: decoded by the server's own code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ram_triton.server_code import (
    TURNS,
    image_limits,
    open_image,
    preprocess,
    read_orientation,
    scale_transparent_colour,
)

# A file on the disk is not a request, but its pixels take as much memory.
LIMITS = replace(image_limits(), max_bytes=2**40)


def read_flat(path: Path, size: int) -> np.ndarray:
    """Read an image as the server shows it to the model, uint8 RGB (size, size, 3).

    Raises:
        OSError: the file cannot be read.
        ImageError: it is no image that the server takes.
    """
    return preprocess(path.read_bytes(), size, LIMITS)


def read_layer(path: Path, size: int) -> np.ndarray:
    """Read an image with its transparency, uint8 RGBA (size, size, 4); errors as `read_flat`."""
    image = open_image(path.read_bytes(), LIMITS)
    # Of 16-bit greys the server makes the one transparent grey white.
    if not image.has_transparency_data or image.mode.startswith("I"):
        opaque = np.full((size, size, 1), 255, np.uint8)
        return np.concatenate([read_flat(path, size), opaque], axis=2)
    scale_transparent_colour(image)
    square = image.convert("RGBA").resize((size, size), Image.Resampling.BILINEAR)
    turn = TURNS.get(read_orientation(image))
    return np.array(square if turn is None else square.transpose(turn))
