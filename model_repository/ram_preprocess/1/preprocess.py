"""Encoded images to pixels: decoding, orientation, colours, size.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import ceil

import numpy as np
from PIL import ExifTags, Image, TiffTags, UnidentifiedImageError

from .encoded_image import FORMATS, NOT_AN_IMAGE, SIGNATURES, ImageError, ImageLimits, unwrap

WHITE = (255, 255, 255)
WHITE_IS_ZERO = 0  # of TIFF's PhotometricInterpretation
TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
# EXIF's orientations, and the operation that turns each of them upright; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG is decoded at the smallest scale (1/2, 1/4 or 1/8) with at least this many pixels per pixel
# of the result, in each direction. docs/images.md shows what other margins gain and lose.
DRAFT_MARGIN = 1.5
# Progressive JPEGs have about ten scans. A file with a few bytes per scan could have thousands, and
# each takes as long as decoding the whole image.
JPEG_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
MAX_SCANS = 100
GREY_SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}  # Pillow's factors from 2 and 4 bits to 8

Image.MAX_IMAGE_PIXELS = None  # `ImageLimits` decides, before anything is decoded


def preprocess_batch(images: Sequence[bytes], image_size: int, limits: ImageLimits) -> np.ndarray:
    """Make a batch of pixels: (B, image_size, image_size, 3) uint8.

    Raises:
        ImageError: as `preprocess`; the message names the input and, if there are several, the
            image.
    """
    pixels = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for index, data in enumerate(images):
        try:
            pixels[index] = preprocess(data, image_size, limits)
        except ImageError as error:
            name = "image" if len(images) == 1 else f"image[{index}]"
            raise ImageError(f"{name}: {error}") from error
    return pixels


def preprocess(data: bytes, image_size: int, limits: ImageLimits) -> np.ndarray:
    """Make the encoder's pixels of an image.

    As RAM's reference: RGB, squashed to a square with Pillow's bilinear filter. In addition, EXIF
    orientation is applied and transparency is composited on white.

    Args:
        data: an encoded image, or its base64 text, or a `data:` URL.
        image_size: side of the square, in pixels.
        limits: the largest image to accept.

    Returns:
        (image_size, image_size, 3) uint8.

    Raises:
        ImageError: it is empty, too large, truncated, or not an image.
    """
    encoded = unwrap(data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody reads Pillow's remarks on a client's image
        image = open_image(encoded, limits)
        square = squash(image, image_size)
        # Turning the small square gives what turning the large image would, and costs less.
        turn = TURNS.get(read_orientation(image))
    return np.asarray(square if turn is None else square.transpose(turn))


def open_image(encoded: bytes, limits: ImageLimits) -> Image.Image:
    """Read an image's header, without decoding its pixels.

    Raises:
        ImageError: the format is unknown, or the image is too large to decode.
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
        draft_margin: see `DRAFT_MARGIN`; with None JPEGs are decoded at full size.

    Raises:
        ImageError: the image is truncated or damaged, or its colours cannot be converted.
    """
    with _explained(f"the {image.format} is truncated or damaged"):
        # For JPEG alone: inverse transforms of fewer coefficients. Other formats ignore it.
        drafted = draft_margin and image.draft(None, (ceil(draft_margin * image_size),) * 2)
        scale_transparent_colour(image)
        image.load()
    with _explained(f"the {image.format}'s {image.mode} pixels cannot be converted to RGB"):
        # A reduced JPEG rounds its sides up: the box is the part that the image covers.
        box = drafted[1] if drafted else None
        return to_rgb(image).resize((image_size,) * 2, Image.Resampling.BILINEAR, box)


def read_orientation(image: Image.Image) -> int | None:
    """Return a decoded image's EXIF orientation: 1 for TIFFs, which Pillow has already turned."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an image with damaged EXIF is still an image
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image to RGB: 16-bit greys scaled, transparency composited on white.

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
    """Scale greys of up to 16 bits to 8; Pillow's own conversion would clip them."""
    tags = getattr(image, "tag_v2", {})
    brightest = 2 ** tags.get(TAGS["BitsPerSample"], (16,))[0] - 1
    table = np.minimum(np.arange(2**16) / brightest, 1)
    if tags.get(TAGS["PhotometricInterpretation"]) == WHITE_IS_ZERO:
        table = 1 - table
    wide = image.convert("I")  # the mode in which Pillow takes a table of 16 bits
    if "transparency" in wide.info:
        table[wide.info.pop("transparency")] = 1
    return wide.point(np.rint(255 * table).astype(int).tolist(), "L")


def scale_transparent_colour(image: Image.Image) -> None:
    """Scale a PNG's transparent colour to 8 bits, as Pillow scales its pixels while decoding."""
    colour = image.info.get("transparency")
    if image.format == "PNG" and isinstance(colour, int):
        image.info["transparency"] = colour * GREY_SCALES.get(image.tile[0].args, 1)
    elif image.format == "PNG" and image.tile[0].args == "RGB;16B" and colour:
        image.info["transparency"] = tuple(part >> 8 for part in colour)


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turn the exceptions of Pillow's decoders into an `ImageError` with one line of text."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its text is only an object's address
        raise ImageError(problem) from error
    except MemoryError as error:
        raise ImageError("there is not enough memory to decode it") from error
    except Exception as error:  # damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{problem} ({reason})") from error
