"""Encoded images to pixels: reading text forms, decoding, orientation, colours, size.

This file imports no Triton: the server, the build and the tests run this very file.
"""

import binascii
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil

import numpy as np
from PIL import ExifTags, Image, TiffTags, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NOT_AN_IMAGE = f"not an image of a known format ({', '.join(FORMATS)}), as bytes or base64 text"
# What encoded images begin with; none of it can begin an image's base64 text.
SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(rb"data:(?P<parameters>[^,]*),(?P<data>.*)", re.S | re.I)
WHITE = (255, 255, 255)
WHITE_IS_ZERO = 0  # of TIFF's PhotometricInterpretation
TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
# EXIF's orientations, and what turns each of them upright; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG is decoded at a reduced scale (1/2, 1/4 or 1/8) that leaves at least this many pixels, each
# way, for one of the result. `python build/measure_decoding.py` measures it: 12 megapixels decode
# about 3 times faster than at full size, and 0.5 to 0.8 of 255 levels off on average; a margin of 2
# is 0.2 to 0.3 off and 2 to 2.7 times faster, a margin of 1 is no faster here and further off.
DRAFT_MARGIN = 1.5
# Progressive JPEGs have about ten scans. A file of some bytes a scan could ask for thousands, each
# as slow as decoding all of the image.
JPEG_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
MAX_SCANS = 100
GREY_SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}  # Pillow's, from 2 and 4 bits to 8

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
    encoded = read_text(data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on a caller's image are no one's here
        image = open_image(encoded, limits)
        square = squash(image, image_size)
        # Turning the small square gives what turning the large image would, and costs less.
        turn = TURNS.get(read_orientation(image))
    return np.asarray(square if turn is None else square.transpose(turn))


def read_text(data: bytes, limits: Limits) -> bytes:
    """Return the encoded image, whether it came as it is, as base64 text or as a `data:` URL.

    Raises:
        ImageError: nothing or too much was sent, or the text is not what it claims to be.
    """
    # Percent signs make a data URL three times as long as what it holds, base64 a third longer.
    if len(data) > 3 * limits.max_bytes + 1000:
        raise ImageError(_too_large(len(data), limits))
    if not data.startswith(tuple(SIGNATURES)):
        text = data.strip()
        data = _read_data_url(text) if text[:5].lower() == b"data:" else _read_base64(text)
    if not data:
        raise ImageError("empty")
    if len(data) > limits.max_bytes:
        raise ImageError(_too_large(len(data), limits))
    return data


def open_image(encoded: bytes, limits: Limits) -> Image.Image:
    """Read an image's header, without decoding it.

    Raises:
        ImageError: the format is unknown, or decoding the image would cost too much.
    """
    name = next((SIGNATURES[start] for start in SIGNATURES if encoded.startswith(start)), None)
    damaged = f"it begins like a {name}, but its header is truncated or damaged"
    with _explained(damaged if name else NOT_AN_IMAGE):
        image = Image.open(BytesIO(encoded), formats=FORMATS)
        tags = getattr(image, "tag_v2", {})
        tile = int(tags.get(TAGS["TileWidth"], 0)), int(tags.get(TAGS["TileLength"], 0))
    for width, height in (image.size, tile):
        if width * height > limits.max_pixels:
            limit = f"{limits.max_pixels} (max_pixels)"
            raise ImageError(f"{width} x {height} pixels are over the limit of {limit}")
    if name == "JPEG" and len(JPEG_SCAN.findall(encoded)) > MAX_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans")
    return image


def squash(
    image: Image.Image, image_size: int, draft_margin: float | None = DRAFT_MARGIN
) -> Image.Image:
    """Decode an opened image and bring it to a square of `image_size` RGB pixels.

    Args:
        image: as `open_image` returns it.
        image_size: side of the square, in pixels.
        draft_margin: see `DRAFT_MARGIN`; None decodes JPEGs at full size.

    Raises:
        ImageError: the image is truncated or damaged, or its colours can't be converted.
    """
    with _explained(f"the {image.format} is truncated or damaged"):
        # Only JPEG has it, the others ignore it: inverse transforms of fewer coefficients.
        drafted = draft_margin and image.draft(None, (ceil(draft_margin * image_size),) * 2)
        _scale_transparent_colour(image)
        image.load()
    with _explained(f"the {image.format}'s {image.mode} pixels can't be converted to RGB"):
        # A reduced JPEG rounds its sides up: the box is what the image covers of the last pixels.
        box = drafted[1] if drafted else None
        return to_rgb(image).resize((image_size,) * 2, Image.Resampling.BILINEAR, box)


def read_orientation(image: Image.Image) -> int | None:
    """Return a decoded image's EXIF orientation; Pillow has turned TIFFs, and says so here."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an image with damaged EXIF is still an image
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image to RGB: 16-bit greys scaled, transparency laid over white.

    Raises:
        ImageError: the pixels have no defined brightness range.
    """
    if image.mode in ("I", "F"):
        raise ImageError("its 32-bit pixels have no defined brightness range, save it with 8 or 16")
    if image.mode.startswith("I;"):
        image = _scale_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, WHITE)
        opaque.paste(image, mask=image)
        return opaque
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Bring greys of up to 16 bits to 8, where Pillow's own conversion would clip them."""
    tags = getattr(image, "tag_v2", {})
    brightest = 2 ** tags.get(TAGS["BitsPerSample"], (16,))[0] - 1
    table = np.minimum(np.arange(2**16) / brightest, 1)
    if tags.get(TAGS["PhotometricInterpretation"]) == WHITE_IS_ZERO:
        table = 1 - table
    wide = image.convert("I")  # the mode in which Pillow takes a table of 16 bits
    if "transparency" in wide.info:
        table[wide.info.pop("transparency")] = 1
    return wide.point(np.rint(255 * table).astype(int).tolist(), "L")


def _scale_transparent_colour(image: Image.Image) -> None:
    """Bring a PNG's transparent colour to 8 bits, as Pillow will bring its pixels when decoding."""
    colour = image.info.get("transparency")
    if image.format == "PNG" and isinstance(colour, int):
        image.info["transparency"] = colour * GREY_SCALES.get(image.tile[0].args, 1)
    elif image.format == "PNG" and image.tile[0].args == "RGB;16B" and colour:
        image.info["transparency"] = tuple(part >> 8 for part in colour)


def _read_data_url(url: bytes) -> bytes:
    """Return what a `data:` URL holds (RFC 2397)."""
    match = DATA_URL.fullmatch(url)
    if match is None:
        raise ImageError("a data: URL without a comma before its data")
    # Percent-encoding is quoted-printable with another sign, which has a decoder in C: urllib's
    # takes 200 bytes of memory for each byte.
    quoted = match["data"].replace(b"=", b"=3D").replace(b"%", b"=")
    data = binascii.a2b_qp(quoted)
    parameters = match["parameters"].lower().replace(b" ", b"").split(b";")
    return _read_base64(data) if b"base64" in parameters[1:] else data


def _read_base64(text: bytes) -> bytes:
    """Decode base64, in the standard or the URL-safe alphabet, with or without padding."""
    compact = text.translate(URL_SAFE, b" \t\r\n").rstrip(b"=")
    try:
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ImageError(NOT_AN_IMAGE) from error


def _too_large(length: int, limits: Limits) -> str:
    return f"{length} bytes are over the limit of {limits.max_bytes} (max_bytes)"


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Raise what Pillow's decoders raise as an `ImageError`, in one line."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # it names an object's address, and nothing else
        raise ImageError(problem) from error
    except MemoryError as error:
        raise ImageError("decoding it takes more memory than there is") from error
    except Exception as error:  # damaged files make them raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{problem} ({reason})") from error
