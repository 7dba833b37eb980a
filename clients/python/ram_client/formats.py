"""Formats that phones and cameras make, decoded here by optional packages: HEIC and raw files."""

import io
import math
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import PIL.Image
from PIL.ExifTags import Base

from .errors import ImageUnreadable, installing
from .files import IMAGE_SUFFIXES
from .image import ImageLike

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_RAW = """
    3fr arw cr2 cr3 dcr dng erf iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f
"""
RAW_SUFFIXES = frozenset(f".{name}" for name in _RAW.split())
# pi-heif has no encoder, and so no part under the GPL; pillow-heif has both.
HEIF_PACKAGES = ("pi_heif", "pillow_heif")
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_HEIF_HINT = f" (decoded here after: {installing('heif')})"
_FLIPS = {  # LibRaw's numbers
    3: PIL.Image.Transpose.ROTATE_180,
    5: PIL.Image.Transpose.ROTATE_90,
    6: PIL.Image.Transpose.ROTATE_270,
}
_MOST_PIXELS = 4_000_000  # 12 MB; the server takes 20 MiB, and looks at less than 1 megapixel
_SMALLEST_PREVIEW = 384  # shorter side, pixels: the published models' input


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of images in folders, with those that installed packages decode."""
    found = IMAGE_SUFFIXES
    if _heif():
        found |= HEIF_SUFFIXES
    return found | RAW_SUFFIXES if find_spec("rawpy") else found


def load(path: Path, *, small: bool = False) -> ImageLike:
    """What to send for a file: itself, unless it is HEIC or a raw file that can be decoded here.

    small: reduce large pictures, for a request that sends them as PNG and not as pixels.

    Raises ImageUnreadable for what cannot be decoded, and for a raw file without rawpy.
    """
    if path.suffix.lower() in RAW_SUFFIXES and path.is_file():
        image = _develop(path)
    elif _heif() and _is_heif(path):
        image = _open_heif(path)
    else:
        return path
    return _fit(image) if small and isinstance(image, PIL.Image.Image) else image


def hint(message: str) -> str:
    """What to add to the server's message, if a package would have helped."""
    return _HEIF_HINT if "this is HEIC" in message and not _heif() else ""


@cache
def _heif() -> str | None:
    return next((name for name in HEIF_PACKAGES if find_spec(name)), None)


def _is_heif(path: Path) -> bool:
    """By content: phones' programs also name HEIC files .jpg."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False  # reading it again will report why
    return start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS


def _open_heif(path: Path) -> PIL.Image.Image:
    package: Any = import_module(_heif() or "")
    package.register_heif_opener(thumbnails=False)
    try:
        with PIL.Image.open(path, formats=("HEIF",)) as image:
            image.load()
            return image
    except Exception as error:  # libheif's own are of many kinds
        raise ImageUnreadable(f"{path}: the HEIC cannot be decoded: {error}") from error


def _develop(path: Path) -> ImageLike:
    """The preview that the camera made, if it is large enough, or else the sensor's own pixels."""
    try:
        import rawpy
    except ImportError as error:
        message = f"a camera's raw file (decoded here after: {installing('raw')})"
        raise ImageUnreadable(f"{path}: {message}") from error
    try:
        with rawpy.imread(str(path)) as raw:
            preview = _preview(rawpy, raw)
            if preview is not None:
                return preview
            # Half size: a quarter of the work, and still more than the model sees.
            return PIL.Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
    except (rawpy.LibRawError, OSError, ValueError, MemoryError) as error:
        raise ImageUnreadable(f"{path}: the raw file cannot be decoded: {_text(error)}") from error


def _preview(rawpy: Any, raw: Any) -> ImageLike | None:
    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if thumbnail.format != rawpy.ThumbFormat.JPEG:
        return None
    try:
        image = PIL.Image.open(io.BytesIO(thumbnail.data), formats=("JPEG",))
        if min(image.size) < _SMALLEST_PREVIEW:
            return None
        if Base.Orientation in image.getexif() or raw.sizes.flip not in _FLIPS:
            data: bytes = thumbnail.data
            return data  # the server turns it as its EXIF says
        return image.transpose(_FLIPS[raw.sizes.flip])
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        return None


def _fit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Means of squares of pixels, if the PNG of all of them might be too large to send."""
    factor = math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS))
    return image.reduce(factor) if factor > 1 else image


def _text(error: Exception) -> str:
    """LibRaw's messages are bytes."""
    detail = error.args[0] if error.args else error
    return detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
