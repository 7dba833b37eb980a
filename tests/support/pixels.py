"""What tests of the preprocessor compare with.

RAM's recipe stands here once more, written independently: Pillow's `convert("RGB")`, and a bilinear
squash to a square.
"""

import numpy as np
import pytest
from PIL import Image
from ram_triton.server_code import ImageError, ImageLimits, image_limits, preprocess

SIZE = 32
LIMITS = image_limits()
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
ORIENTATION = 0x0112
RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)  # greys of 16 bits


def reference(image: Image.Image, size: int = SIZE) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def mean_difference(pixels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(pixels.astype(int) - expected.astype(int)).mean())


def largest_difference(pixels: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(pixels.astype(int) - expected.astype(int)).max())


def assert_near(pixels: np.ndarray, expected: np.ndarray) -> None:
    """The resizer rounds otherwise than Pillow's own: one level of 255 at most."""
    assert pixels.shape == expected.shape
    assert largest_difference(pixels, expected) <= 1


def over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba.convert("RGBA"))


def near(encoded: bytes, expected: bytes | Image.Image, levels: int = 1) -> None:
    """Compare what two files give; a picture is squashed by Pillow."""
    pixels = preprocess(encoded, SIZE).astype(int)
    if isinstance(expected, Image.Image):
        square = expected.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        other = np.asarray(square).astype(int)
    else:
        other = preprocess(expected, SIZE).astype(int)
    assert abs(pixels - other).max() <= levels


def problem(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        preprocess(data, SIZE, limits)
    message = str(caught.value)
    assert message and "\n" not in message and "0x" not in message
    return message
