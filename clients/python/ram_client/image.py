"""The image of a request: what the caller has, as encoded bytes, or squashed to pixels."""

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
from PIL.ExifTags import Base

from .errors import ImageUnreadable
from .pixels import Pixels, can_be_squashed, is_array, squash, to_picture


class ExportsArray(Protocol):
    """What numpy can make an array of, without any library being imported for it: a tensor."""

    def __array__(self) -> np.ndarray[Any, Any]: ...


class ExportsDlpack(Protocol):
    """What exports its memory by DLPack only."""

    def __dlpack__(self) -> object: ...


ImageLike: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | PIL.Image.Image
    | np.ndarray[Any, Any]
    | ExportsArray
    | ExportsDlpack
)
"""A path, the bytes of an encoded image (JPEG, PNG, …), a Pillow image, or an array of pixels:
height x width x 3 uint8, numpy's or a tensor in the computer's own memory."""

Content: TypeAlias = bytes | Pixels

MAX_BYTES = 2**31 - 1  # what a gRPC message can contain

# PNG has none of these. F and LAB are missing: they have no agreed range to convert from.
_MODE_FOR_PNG = {
    "CMYK": "RGB",
    "HSV": "RGB",
    "La": "LA",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
}


def are_pixels(images: Sequence[ImageLike]) -> bool:
    """Whether all of these can be sent as pixels; files and bytes are the server's to decode."""
    return all(map(can_be_squashed, images))


def contents(images: Sequence[ImageLike], image_size: int | None, bgr: bool) -> list[Content]:
    """What is sent of the images: pixels of a square of `image_size`, or if None encoded bytes.

    The message of an error names the image, if there are several.
    """
    found = []
    for index, image in enumerate(images):
        try:
            found.append(content(image, image_size, bgr))
        except ImageUnreadable as error:
            raise named(error, index, len(images)) from error
    return found


def content(image: ImageLike, image_size: int | None, bgr: bool) -> Content:
    """What is sent of one image; see `contents`."""
    return encode(image, bgr) if image_size is None else squash(image, image_size, bgr)


def named(error: ImageUnreadable, index: int, count: int) -> ImageUnreadable:
    """The error with the image's place in its message, as the server writes it."""
    text = str(error)
    if count > 1 and text.startswith("image: "):
        return ImageUnreadable(f"image[{index}]{text.removeprefix('image')}")
    return error


def encode(image: ImageLike, bgr: bool = False) -> bytes:
    """The encoded image to send.

    Files and bytes are sent as they are: only the server decodes them. A Pillow image becomes a
    PNG, which loses nothing, and keeps its EXIF orientation; so does an array.

    Raises ImageUnreadable if a file cannot be read or a picture cannot be encoded, TypeError for
    anything that is not an image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, PIL.Image.Image):
        return _encode_png(image)
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if is_array(image):
        return _encode_png(to_picture(image, bgr))
    kinds = "a path, bytes, a Pillow image or an array"
    raise TypeError(f"an image is {kinds}, not {type(image).__name__}")


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISFIFO(status.st_mode):
            return _read_pipe(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageUnreadable(f"{path}: is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ImageUnreadable(f"{path}: is not a file")
        if status.st_size > MAX_BYTES:
            raise ImageUnreadable(f"{path}: larger than 2 GiB")
        return path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageUnreadable(f"{path}: a broken link, to {path.readlink()}") from error
        raise ImageUnreadable(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise ImageUnreadable(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise ImageUnreadable(f"{str(path)!r}: {error}") from error


def _read_pipe(path: Path) -> bytes:
    """Read a pipe to its end; opening one that nobody writes to would wait without end."""
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(pipe, "rb") as stream:  # noqa: PTH123  # of a descriptor
        os.set_blocking(pipe, True)
        data = stream.read(MAX_BYTES + 1)
    if not data:
        raise ImageUnreadable(f"{path}: a pipe that nobody writes to")
    if len(data) > MAX_BYTES:
        raise ImageUnreadable(f"{path}: larger than 2 GiB")
    return data


def _to_16_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Mode I is 32 bits wide, but Pillow mostly keeps 16-bit grey images in it."""
    band = np.asarray(image)
    if band.size and (band.min() < 0 or band.max() > 0xFFFF):
        raise ValueError("32-bit pixels have no agreed range, convert the image to I;16 or L first")
    return image.convert("I;16")


def _encode_png(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        exif = PIL.Image.Exif()
        if orientation := image.getexif().get(Base.Orientation):
            exif[Base.Orientation] = orientation
        if image.mode in _MODE_FOR_PNG:
            image = image.convert(_MODE_FOR_PNG[image.mode])
            image.info.pop("icc_profile", None)  # it described the old mode's channels
        if image.mode == "I":
            image = _to_16_bits(image)
        # Level 1: the network is faster than a better compression.
        image.save(buffer, format="PNG", compress_level=1, exif=exif)
    except (OSError, ValueError) as error:
        raise ImageUnreadable(f"image: cannot be encoded as PNG: {error}") from error
    return buffer.getvalue()
