"""The pictures that are sent: of mixed sizes and formats, and broken ones."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps
from ram_client.errors import ImageUnreadable
from ram_client.files import find_images

ORIGINALS = Path(__file__).parents[1] / "build" / "demo" / "images"
# The longest side in pixels: a thumbnail, a web page's picture, a screenshot, a phone's photo.
LONGEST_SIDES = (240, 640, 1280, 4000)
FORMATS = {"jpg": ("JPEG", {"quality": 88}), "png": ("PNG", {}), "webp": ("WEBP", {"quality": 80})}
PHOTO_SIDE = 4000  # so large are photos, and photos are JPEGs


class PicturesError(ValueError):
    """There is nothing to send; the message says why, in one line."""


@dataclass(frozen=True)
class Picture:
    """An encoded image and the name by which reports call it."""

    name: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Tells pictures apart, on whatever machine they are read or made."""
        return hashlib.sha256(self.data).hexdigest()


def read_folder(folder: Path) -> list[Picture]:
    """Read the images of a folder and its subfolders, unchanged.

    Raises:
        PicturesError: there are none, or one cannot be read.
    """
    try:
        files = find_images(folder, recursive=True)
        pictures = [Picture(str(path.relative_to(folder)), path.read_bytes()) for path in files]
    except (ImageUnreadable, ValueError) as error:
        raise PicturesError(f"{error}: --images takes a folder of images") from error
    except OSError as error:
        raise PicturesError(f"{error.filename}: {error.strerror}") from error
    return list({picture.sha256: picture for picture in pictures}.values())


def make_mixed(originals: Path = ORIGINALS) -> list[Picture]:
    """Make each original in several sizes, by turns as JPEG, PNG and WebP.

    Raises:
        PicturesError: the folder holds no PNG.
    """
    paths = sorted(originals.glob("*.png"))
    if not paths:
        raise PicturesError(f"{originals}: holds no PNG to make pictures of")
    formats = list(FORMATS)
    return [
        _resized(path, side, "jpg" if side == PHOTO_SIDE else formats[(row + column) % 3])
        for row, path in enumerate(paths)
        for column, side in enumerate(LONGEST_SIDES)
    ]


def make_broken(pictures: list[Picture]) -> list[Picture]:
    """Make what servers are sent by mistake: nothing, text, a web page, uploads that broke off."""
    cut_off = [
        Picture(f"half of {picture.name}", picture.data[: len(picture.data) // 2])
        for picture in pictures
        if picture.data.startswith((b"\xff\xd8", b"\x89PNG"))
    ]
    return [
        Picture("nothing", b""),
        Picture("text", b"a text, and no image"),
        Picture("web page", b"<!doctype html><title>404</title>"),
        *cut_off[:3],
    ]


def _resized(path: Path, side: int, suffix: str) -> Picture:
    image_format, options = FORMATS[suffix]
    buffer = BytesIO()
    with Image.open(path) as image:
        ImageOps.contain(image.convert("RGB"), (side, side)).save(buffer, image_format, **options)
    return Picture(f"{path.stem}_{side}.{suffix}", buffer.getvalue())
