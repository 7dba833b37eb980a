"""TIFFs: their directory, and the kinds that Pillow refuses or decodes wrongly.

libtiff's own conversion to RGBA, by imagecodecs, is what viewers show. It takes unsigned samples of
up to 16 bits; others are unpacked by tifffile, and scaled as docs/images.md states. Both packages
are imported when the first such file comes.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from .encoded_image import ImageError, ImageLimits, Structure, damaged

MAX_STRIPS = 100_000  # strips or tiles
MAX_VALUES = 3 * 2**16  # of any tag that is read: a palette of 16 bits
MAX_ENTRIES = 4096  # tags of a directory
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
SAMPLES, PLANAR, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 284, 320, 338, 339
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
# The types of whole numbers, as `struct` names them.
NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
KINDS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
KINDS |= {9: "Lab", 10: "Lab", 32803: "raw camera", 32844: "LogL", 32845: "LogLuv"}
MANY_STRIPS = 20_000  # Pillow takes ten microseconds for each
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
FORMATS = {UNSIGNED: "", SIGNED: "signed ", FLOAT: "float "}
JPEG_COMPRESSIONS = (6, 7)
COMPRESSIONS = (1, 2, 3, 4, 5, *JPEG_COMPRESSIONS, 8, 32773, 32946)  # that Pillow's libtiff has
LOGARITHMIC = (32844, 32845)
# libtiff turns rows and columns around, and does not exchange them: the orientation that is left.
LEFT_BY_LIBTIFF = {5: 5, 6: 7, 7: 5, 8: 7}

Tags = dict[int, tuple[int, ...]]


def walk_tiff(data: bytes, limits: ImageLimits) -> Structure:
    """Read the size, and the numbers of the first directory."""
    tags = dict(_read_directory(data))
    width, height = (tags.get(tag, (0,))[0] for tag in (WIDTH, HEIGHT))
    tile = tags.get(TILE_WIDTH, (1,))[0], tags.get(TILE_HEIGHT, (1,))[0]
    if tile != (1, 1):
        limits.check_size(*tile)
    for tag in (BITS, SAMPLES):
        if any(number > 64 for number in tags.get(tag, ())):
            raise ImageError(damaged("TIFF"))
    return Structure("TIFF", width, height, data, tags=tags)


def _read_directory(data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the tags of the first directory whose values are whole numbers, and these."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]  # BigTIFF's version is 43, "+", where others have 42, "*"
    word, short = (struct.Struct(order + letter) for letter in ("QQ" if big else "IH"))
    entry = struct.Struct(f"{order}HH{'Q' if big else 'I'}")
    (place,) = word.unpack_from(data, 8 if big else 4)
    (count,) = short.unpack_from(data, place)
    if count > MAX_ENTRIES:
        raise ImageError(f"the TIFF has more than {MAX_ENTRIES} tags")
    for number in range(count):
        here = place + short.size + number * (entry.size + word.size)
        tag, kind, length = entry.unpack_from(data, here)
        if tag in (STRIPS, STRIP_BYTES, TILES, TILE_BYTES) and length > MAX_STRIPS:
            raise ImageError(f"the TIFF has more than {MAX_STRIPS} strips or tiles")
        if kind not in NUMBERS or length > MAX_VALUES:
            continue
        numbers = struct.Struct(f"{order}{length}{NUMBERS[kind]}")
        value = here + entry.size
        if numbers.size > word.size:
            (value,) = word.unpack_from(data, value)
        if value + numbers.size <= len(data):
            yield tag, numbers.unpack_from(data, value)


def is_for_pillow(tags: Tags) -> bool:
    """Whether Pillow decodes this kind, and decodes it right."""
    colours, bits, samples, formats = _kind(tags)
    contiguous = tags.get(PLANAR, (1,))[0] == 1
    extra = tags.get(EXTRA_SAMPLES, ())
    if formats != {UNSIGNED} or len(set(bits)) > 1 or len(tags.get(STRIPS, ())) > MANY_STRIPS:
        return False
    if tags.get(COMPRESSION, (1,))[0] not in COMPRESSIONS:
        return False
    if colours in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        alone = samples == 1 and bits[0] in (1, 2, 4, 8, 12, 16)
        return alone or (samples == 2 and bits[0] == 8 and extra == (2,) and contiguous)
    if colours == PALETTE:
        # Some write levels of 8 bits where 16 are due: libtiff's rule.
        return samples == 1 and bits[0] <= 8 and max(tags.get(COLOUR_MAP, (0,))) > 255
    if colours == RGB:
        return (samples == 3 and (bits[0] == 8 or (bits[0] == 16 and contiguous))) or (
            samples == 4 and bits[0] == 8 and contiguous and extra in ((0,), (1,), (2,))
        )
    if colours == YCBCR:
        return tags.get(COMPRESSION, (1,))[0] in JPEG_COMPRESSIONS and contiguous
    return (colours, samples, bits[0], contiguous) in ((CMYK, 4, 8, True), (LAB, 3, 8, True))


def _kind(tags: Tags) -> tuple[int, tuple[int, ...], int, set[int]]:
    """Return the photometric interpretation, bits per sample, their number, their formats."""
    formats = {1 if number == 4 else number for number in tags.get(SAMPLE_FORMAT, (UNSIGNED,))}
    return (
        tags.get(PHOTOMETRIC, (BLACK_IS_ZERO,))[0],
        tags.get(BITS, (1,)) or (1,),
        tags.get(SAMPLES, (1,))[0],
        formats,
    )


def describe(tags: Tags) -> str:
    """Name a kind of TIFF: "signed 16-bit grey"."""
    colours, bits, _, formats = _kind(tags)
    number = FORMATS.get(min(formats), "complex ")
    return f"{number}{bits[0]}-bit {KINDS.get(colours, f'photometric {colours}')}"


def read_tiff(data: bytes, tags: Tags) -> Image.Image:
    """Decode a TIFF to RGB, upright or with its EXIF orientation.

    Raises:
        ImageError: its kind is not read here, or has no defined brightness range.
    """
    try:
        import imagecodecs
    except ImportError:
        advice = "is read only if the server has imagecodecs and tifffile; save it as 8-bit RGB"
        raise ImageError(f"a {describe(tags)} TIFF {advice}") from None
    colours, bits, _, formats = _kind(tags)
    turned = tags.get(ORIENTATION, (1,))[0]
    refuse_truncated(data, tags)
    if colours == 32803:
        raise ImageError("the TIFF is a camera's raw file; save it as RGB")
    usual = (8, 16) if colours not in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) else (1, 2, 4, 8, 16)
    unsigned = formats == {UNSIGNED} and len(set(bits)) == 1 and bits[0] in usual
    # libtiff mixes up the alpha of 16 bits, and of CMYK.
    mixed_up = bool(tags.get(EXTRA_SAMPLES)) and (bits[0] == 16 or colours == CMYK)
    image = None
    if colours in LOGARITHMIC or (unsigned and not mixed_up):
        with suppress(imagecodecs.TiffError):  # there are kinds that it refuses
            image = _composite(imagecodecs.tiff_decode(data, asrgb=True))
            turned = LEFT_BY_LIBTIFF.get(turned, 1)
    if image is None:
        image = Image.fromarray(_scale(_unpack(data, tags), tags))
    image.getexif()[ExifTags.Base.Orientation] = turned
    return image


def refuse_truncated(data: bytes, tags: Tags) -> None:
    """Refuse a file that ends before its strips or tiles do: libtiff would leave them black.

    Raises:
        ImageError: it does.
    """
    for offsets, counts in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
        parts = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(offset + count > len(data) for offset, count in parts):
            raise ImageError("the TIFF is truncated or damaged (it ends before its pixels)")


def _composite(rgba: np.ndarray) -> Image.Image:
    """Composite premultiplied RGBA on white, in place."""
    if rgba.shape[-1] == 3:
        return Image.fromarray(rgba)
    for first in range(0, len(rgba), 256):
        band = rgba[first : first + 256]
        clear = 255 - band[..., 3:]
        band[..., :3] = np.minimum(band[..., :3], 255 - clear) + clear
        band[..., 3] = 255
    return Image.fromarray(rgba)


def _unpack(data: bytes, tags: Tags) -> np.ndarray:
    """Return the samples, (height, width, samples)."""
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as file:
        samples = file.pages[0].asarray(maxworkers=1)
    if samples.ndim == 2:
        return samples[..., None]
    if tags.get(PLANAR, (1,))[0] == 2:
        samples = samples.transpose(1, 2, 0)
    if samples.ndim != 3:
        raise ImageError("the TIFF has more than two dimensions; save it as 8-bit RGB")
    return samples


def _scale(samples: np.ndarray, tags: Tags) -> np.ndarray:
    """Scale samples to RGB of 8 bits: see docs/images.md.

    Raises:
        ImageError: it is not known which value is white.
    """
    colours, bits, _, formats = _kind(tags)
    if colours == PALETTE:
        table = np.asarray(tags.get(COLOUR_MAP, ()), np.uint16)
        if not len(table) or len(table) % 3 or samples.max() >= len(table) // 3:
            raise ImageError("the TIFF's palette is truncated or damaged")
        return (table.reshape(3, -1).T >> 8).astype(np.uint8)[samples[..., 0]]
    known = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, CMYK: 4}
    if colours not in known or samples.shape[2] < known[colours]:
        raise ImageError(f"a {describe(tags)} TIFF is not read; save it as 8-bit RGB")
    white = _white(samples, bits[0], formats, tags)
    result = np.empty((*samples.shape[:2], 3), np.uint8)
    extra = tags.get(EXTRA_SAMPLES, ())
    for first in range(0, len(samples), 256):
        band = np.clip(np.nan_to_num(samples[first : first + 256].astype(np.float32)) / white, 0, 1)
        rgb = band[..., : known[colours]]
        if colours == WHITE_IS_ZERO:
            rgb = 1 - rgb
        elif colours == CMYK:
            rgb = (1 - rgb[..., :3]) * (1 - rgb[..., 3:])
        if samples.shape[2] > known[colours] and extra[:1] in ((1,), (2,)):
            alpha = band[..., known[colours], None]
            rgb = (rgb if extra[0] == 1 else rgb * alpha) + 1 - alpha
        result[first : first + 256] = np.rint(255 * np.clip(rgb, 0, 1))
    return result


def _white(samples: np.ndarray, bits: int, formats: set[int], tags: Tags) -> float:
    """Return the value that is white."""
    if formats == {FLOAT}:
        largest = max((float(np.nanmax(band)) for band in samples), default=0.0)
        for white in (1.0, 255.0):
            if largest <= white:
                return white
    elif formats in ({UNSIGNED}, {SIGNED}):
        white = float(2 ** (bits - (formats == {SIGNED})) - 1)
        if bits <= 16 or float(samples.max()) > white / 256:
            return white
    raise ImageError(
        f"its {bits}-bit pixels have no defined brightness range; save it with 8 or 16 bits"
    )
