"""Encoded images to pixels: reading text forms, decoding, orientation, colours, size.

This file imports no Triton: the server, the build and the tests run this very file.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NOT_AN_IMAGE = f"not an image of a known format ({', '.join(FORMATS)}), as bytes or base64 text"
# What encoded images begin with; none of it can begin an image's base64 text.
SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(rb"data:(?P<type>[^,;]*)(?P<parameters>;[^,]*)?,(?P<data>.*)", re.S)
WHITE = (255, 255, 255)
ORIENTATION, UPRIGHT = ExifTags.Base.Orientation, 1
# A JPEG is decoded at a reduced scale that leaves at least this many pixels for each one of the
# result; `make measure-decoding` prints the pixel differences and times behind this number.
DRAFT_MARGIN = 2

Image.MAX_IMAGE_PIXELS = None  # `Limits` decides, before anything is decoded


class ImageError(ValueError):
    """An image can't be used; the message says why, in one line."""


@dataclass(frozen=True)
class Limits:
    """What an image may cost.

    Attributes:
        max_bytes: length of the encoded image.
        max_pixels: width times height, as its header states them.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 100_000_000


def preprocess_batch(
    images: Sequence[bytes], image_size: int, limits: Limits = Limits()
) -> np.ndarray:
    """Make a batch of pixels: (B, image_size, image_size, 3) uint8.

    Raises:
        ImageError: as `preprocess`; the message names the input and, of several, which image.
    """
    pixels = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for index, data in enumerate(images):
        try:
            pixels[index] = preprocess(data, image_size, limits)
        except ImageError as error:
            name = "image" if len(images) == 1 else f"image[{index}]"
            raise ImageError(f"{name}: {error}") from error
    return pixels


def preprocess(data: bytes, image_size: int, limits: Limits = Limits()) -> np.ndarray:
    """Turn an image as people have it into the pixels that the encoder takes.

    As RAM's reference: RGB, squashed to a square with Pillow's bilinear filter. Beyond it, EXIF
    orientation is applied and transparency is laid over white.

    Args:
        data: an encoded image, or its base64 text, or a `data:` URL.
        image_size: side of the square, in pixels.
        limits: what the image may cost.

    Returns:
        (image_size, image_size, 3) uint8.

    Raises:
        ImageError: the image is empty, too large, truncated, or none.
    """
    image = open_image(read_text(data, limits), limits)
    try:
        # Only JPEG has it, the others ignore it: inverse transforms of fewer coefficients.
        image.draft(None, (DRAFT_MARGIN * image_size,) * 2)
        rgb = to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"the {image.format} is truncated or damaged ({error})") from error
    square = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR)
    # Turning the small square gives what turning the large image would, and costs less.
    square.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, UPRIGHT)
    return np.asarray(ImageOps.exif_transpose(square))


def read_text(data: bytes, limits: Limits) -> bytes:
    """Return the encoded image, whether it came as it is, as base64 text or as a `data:` URL.

    Raises:
        ImageError: nothing or too much was sent, or the text is not what it claims to be.
    """
    if not data:
        raise ImageError("empty")
    # Percent signs make a data URL three times as long as what it holds, base64 a third longer.
    if len(data) > 3 * limits.max_bytes + 1000:
        raise ImageError(_too_large(len(data), limits))
    if not data.startswith(SIGNATURES):
        data = _read_data_url(data) if data[:5].lower() == b"data:" else _read_base64(data)
    if len(data) > limits.max_bytes:
        raise ImageError(_too_large(len(data), limits))
    return data


def open_image(data: bytes, limits: Limits) -> Image.Image:
    """Read an image's header, without decoding it.

    Raises:
        ImageError: the format is unknown, or the image has too many pixels.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(NOT_AN_IMAGE) from error
    except Exception as error:
        raise ImageError(f"its header is damaged ({error})") from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{width} x {height} pixels are over the limit of {limits.max_pixels} (max_pixels)"
        )
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode and convert to RGB: 16-bit greys scaled, transparency laid over white.

    Raises:
        ImageError: the pixels have no defined brightness range.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _scale_grey(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, WHITE)
        image.paste(rgba, mask=rgba.getchannel("A"))
    return image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Bring 16-bit greys to 8 bits, where Pillow's own conversion would clip them."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError("its 32-bit pixels have no defined brightness range, save it with 8 or 16")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _read_data_url(url: bytes) -> bytes:
    """Return what a `data:` URL holds (RFC 2397)."""
    match = DATA_URL.fullmatch(url)
    if match is None:
        raise ImageError("a data: URL without a comma before its data")
    if b";base64" in (match["parameters"] or b"").lower():
        return _read_base64(unquote_to_bytes(match["data"]))
    return unquote_to_bytes(match["data"])


def _read_base64(text: bytes) -> bytes:
    """Decode base64, in the standard or the URL-safe alphabet, with or without padding."""
    compact = text.translate(URL_SAFE, b" \t\r\n").rstrip(b"=")
    try:
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ImageError(NOT_AN_IMAGE) from error


def _too_large(length: int, limits: Limits) -> str:
    return f"{length} bytes are over the limit of {limits.max_bytes} (max_bytes)"
