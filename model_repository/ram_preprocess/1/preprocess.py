"""Encoded images to pixels: decoding, orientation, colours, size.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from math import ceil

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffTags, UnidentifiedImageError

from .bmp import is_unusual_bmp, read_bmp
from .encoded_image import (
    FORMATS,
    HEIC_PACKAGE,
    MISSING_ROWS,
    ImageError,
    ImageLimits,
    Structure,
    damaged,
    unwrap,
)
from .jpeg import check_rows
from .resize import resize
from .structure import examine, still_exif, with_transparency
from .tiff import is_for_pillow, read_tiff

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
GREY_SCALES = {"L;2": 255 // 3, "L;4": 255 // 15}  # Pillow's factors from 2 and 4 bits to 8
MISSING_PIXELS = 0.5  # of a GIF that is whole, but has too few of them
LARGE_WEBP = 16_000_000  # pixels; Pillow's decoder of animations takes 16 bytes for each
BAND = 256  # rows that are composited at once

Image.MAX_IMAGE_PIXELS = None  # `ImageLimits` decides, before anything is decoded


def preprocess_batch(
    images: Sequence[bytes], image_size: int, preprocess_one: Callable[[bytes], np.ndarray]
) -> np.ndarray:
    """Make a batch of pixels: (B, image_size, image_size, 3) uint8.

    Args:
        images: as `preprocess` takes them.
        image_size: side of the square, in pixels.
        preprocess_one: makes the pixels of one, as a `Decoder` does.

    Raises:
        ImageError: as `preprocess`; the message names the input and, if there are several, the
            image.
    """
    pixels = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for index, data in enumerate(images):
        try:
            pixels[index] = preprocess_one(data)
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
    return decode(examine(unwrap(data, limits), limits), image_size)


def decode(structure: Structure, image_size: int) -> np.ndarray:
    """Make the encoder's pixels of an image whose structure is known; see `preprocess`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody reads Pillow's remarks on a client's image
        image = _open(structure)
        square = squash(image, image_size, complete=structure.complete)
        # Turning the small square gives what turning the large image would, and costs less.
        turn = TURNS.get(read_orientation(image) or 1)
    return np.asarray(square if turn is None else square.transpose(turn))


def open_image(encoded: bytes, limits: ImageLimits) -> Image.Image:
    """Read an image's header, without decoding its pixels.

    Raises:
        ImageError: the format is unknown, or the image is too large to decode.
    """
    return _open(examine(encoded, limits))


def _open(structure: Structure) -> Image.Image:
    name = structure.format
    with _explained(damaged(name)):
        if structure.place:
            return open_frame(structure)
        if name == "BMP" and is_unusual_bmp(structure.encoded):
            return _of_format(read_bmp(structure.encoded), name)
        if name == "TIFF":
            return _open_tiff(structure)
        if name == "WEBP" and structure.pixels > LARGE_WEBP:
            large = _open_large_webp(structure.encoded)
            if large is not None:
                return large
        if name == "HEIF":
            import_module(HEIC_PACKAGE).register_heif_opener(thumbnails=False)
        image = Image.open(BytesIO(structure.encoded), formats=FORMATS)
    if image.size[0] * image.size[1] > structure.pixels:
        raise ImageError(f"the {name} is truncated or damaged (two different sizes)")
    return image


def open_frame(structure: Structure) -> Image.Image:
    """Return a GIF's first frame on its canvas, which is transparent where the frame is not.

    Raises:
        ImageError: more of its pixels are missing than `MISSING_ROWS`.
    """
    assert structure.place is not None
    frame = Image.open(BytesIO(structure.encoded), formats=["GIF"])
    try:
        frame.load()
    except (OSError, EOFError):
        frame = _open_incomplete(structure)
    left, top, width, height = structure.place
    if (left, top, width, height) == (0, 0, structure.width, structure.height):
        return frame
    with _explained("the GIF is truncated or damaged"):
        canvas = Image.new("RGB", (structure.width, structure.height), WHITE)
        canvas.paste(to_rgb(frame), (left, top))
    return _of_format(canvas, "GIF")


def _open_incomplete(structure: Structure) -> Image.Image:
    """Decode a GIF's frame that ends early; what is missing is transparent."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        frame = Image.open(BytesIO(with_transparency(structure.encoded)), formats=["GIF"])
        frame.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    missing = float(np.mean(np.asarray(frame) == frame.info.get("transparency")))
    if missing > (MISSING_PIXELS if structure.complete else MISSING_ROWS):
        reason = f"pixels are missing, up to {missing:.0%} of all"
        raise ImageError(f"the GIF is truncated or damaged ({reason})")
    return frame


def _open_large_webp(encoded: bytes) -> Image.Image | None:
    """Decode a still WebP without the canvases of animations; None if it cannot be done here."""
    exif = still_exif(encoded)
    if exif is None:
        return None
    try:
        from imagecodecs import webp_decode
    except ImportError:
        return None
    image = Image.fromarray(webp_decode(encoded))
    with suppress(Exception):  # an image with damaged EXIF is still an image
        image.getexif().load(exif)
    return _of_format(image, "WEBP")


def _open_tiff(structure: Structure) -> Image.Image:
    """Open a TIFF with Pillow; decode it otherwise if Pillow would not, or not rightly."""
    encoded, tags = structure.encoded, structure.tags
    problem = None
    if is_for_pillow(tags):
        try:
            image = Image.open(BytesIO(encoded), formats=["TIFF"])
        except Exception as error:  # BigTIFF of one byte order
            problem = error
        else:
            with _explained("the TIFF is truncated or damaged"):
                image.load()
            return image
    with _explained("the TIFF is truncated or damaged"):
        try:
            return _of_format(read_tiff(encoded, tags), "TIFF")
        except ImageError:
            raise
        except Exception as error:
            raise problem or error from error


def _of_format(image: Image.Image, name: str) -> Image.Image:
    image.format = name
    return image


def squash(
    image: Image.Image,
    image_size: int,
    draft_margin: float | None = DRAFT_MARGIN,
    complete: bool = True,
) -> Image.Image:
    """Decode an opened image and bring it to a square of `image_size` RGB pixels.

    Args:
        image: as `open_image` returns it.
        image_size: side of the square, in pixels.
        draft_margin: see `DRAFT_MARGIN`; with None JPEGs are decoded at full size.
        complete: False for a JPEG that ends before its pixels; see `MISSING_ROWS`.

    Raises:
        ImageError: the image is truncated or damaged, or its colours cannot be converted.
    """
    with _explained(f"the {image.format} is truncated or damaged"):
        # For JPEG alone: inverse transforms of fewer coefficients. Other formats ignore it.
        drafted = draft_margin and image.draft(None, (ceil(draft_margin * image_size),) * 2)
        scale_transparent_colour(image)
        image.load()
    if not complete:
        check_rows(image)
    with _explained(f"the {image.format}'s {image.mode} pixels cannot be converted to RGB"):
        # A reduced JPEG rounds its sides up: the box is the part that the image covers.
        box = drafted[1] if drafted else None
        return resize(to_rgb(image), image_size, box)


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
        raise ImageError(
            "its 32-bit pixels have no defined brightness range; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;"):
        image = _scale_grey(image)
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Composite on white, by bands: a whole copy with transparency would take the most memory."""
    opaque = Image.new("RGB", image.size, WHITE)
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        band = image.crop(box).convert("RGBA")
        opaque.paste(band, box, band)
    return opaque


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


def worst_bytes(limits: ImageLimits) -> int:
    """Return the memory that any image within the limits is decoded in; docs/images.md has why."""
    return 12 * limits.max_pixels + 4 * limits.max_bytes + 2**26


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
    except (LookupError, TypeError, AttributeError) as error:  # its text is about Pillow's code
        raise ImageError(problem) from error
    except Exception as error:  # damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{problem} ({reason})") from error
