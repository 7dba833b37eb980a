"""Pictures that the caller has as pixels: arrays, tensors, Pillow images; and their squash.

What is sent of them is what the server would make of the picture: RGB, squashed to the model's
square. The code of the squash is the server's own file, `resize.py`.
"""

import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
from PIL.ExifTags import Base

from .errors import ImageUnreadable

Pixels: TypeAlias = npt.NDArray[np.uint8]

CHANNELS = 3
# Pillow's modes that become RGB by one conversion, here as on the server. Others are sent as PNG:
# transparency and greys of 16 bits are the server's to convert.
_PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "HSV", "YCbCr")


def is_array(image: object) -> bool:
    """Whether this is an array of pixels: numpy's, a tensor, or what else exports its memory."""
    known = (str, os.PathLike, bytes, bytearray, memoryview, PIL.Image.Image)
    if isinstance(image, known):
        return False
    return any(hasattr(image, name) for name in ("__array__", "__array_interface__", "__dlpack__"))


def can_be_squashed(image: object) -> bool:
    """Whether `squash` takes this image: an array, or a Pillow image of plain colours."""
    if isinstance(image, PIL.Image.Image):
        return image.mode in _PLAIN_MODES and not image.has_transparency_data
    return is_array(image)


def read_array(image: Any) -> Pixels:
    """The pixels (height, width, 3) of an array, in its own order of channels; not copied.

    Raises ImageUnreadable if it is not height x width x 3 uint8; the message says what to do.
    """
    try:
        array = np.asarray(image) if hasattr(image, "__array__") else np.from_dlpack(image)
    except Exception as error:  # of its library: a tensor on a GPU, say
        raise ImageUnreadable(f"image: {' '.join(str(error).split())}") from error
    shape = " x ".join(map(str, array.shape))
    if array.ndim == 4:
        problem = f"{shape} is a batch: pass its pictures to tag_batch, as list(array)"
    elif array.ndim not in (2, 3):
        problem = f"an array of {array.ndim} dimensions is not a picture of height x width x 3"
    elif 0 in array.shape:
        problem = f"{shape} has no pixels"
    elif array.ndim == 2 or array.shape[2] == 1:
        problem = f"{shape} is grey; PIL.Image.fromarray(array.squeeze()) is taken"
    elif array.shape[2] == 4:
        problem = f"{shape} has four channels; PIL.Image.fromarray(array) is taken, if it is RGBA"
    elif array.shape[2] > 4 and array.shape[0] in (1, CHANNELS, 4):
        problem = f"{shape} looks like channels first; np.moveaxis(array, 0, -1) puts them last"
    elif array.shape[2] != CHANNELS:
        problem = f"{shape} has {array.shape[2]} channels, a picture has {CHANNELS}"
    elif array.dtype != np.uint8:
        problem = f"pixels are uint8, 0 to 255, and not {array.dtype}"
        if array.dtype.kind == "f":
            problem += "; (255 * array).round().astype(np.uint8) converts 0 to 1"
    else:
        return array
    raise ImageUnreadable(f"image: {problem}")


def to_picture(image: Any, bgr: bool) -> PIL.Image.Image:
    """A Pillow image, RGB, of an array; raises as `read_array`."""
    array = read_array(image)
    return PIL.Image.fromarray(array[..., ::-1] if bgr else array)


def squash(image: Any, image_size: int, bgr: bool = False) -> Pixels:
    """What the server makes of the picture: (image_size, image_size, 3) uint8, RGB.

    image: for which `can_be_squashed`. An array is RGB, or BGR if `bgr` says so; a Pillow image is
        turned upright by its EXIF orientation.

    Equal to what the server makes of the same picture as PNG if both have, or lack, the resizer of
    `ram-client[arrays]`; else at most 1 of 255 levels off. Raises ImageUnreadable if an array is
    not height x width x 3 uint8, or a Pillow image cannot be decoded.
    """
    from .resize import resize

    if not isinstance(image, PIL.Image.Image):
        # The filter treats channels alike: BGR is put in order when it is small.
        pixels: Pixels = np.asarray(resize(PIL.Image.fromarray(read_array(image)), image_size))
        return pixels[..., ::-1] if bgr else pixels
    try:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        square = resize(rgb, image_size)
        if orientation := image.getexif().get(Base.Orientation):
            square = square.copy()
            square.getexif()[Base.Orientation] = orientation
            square = PIL.ImageOps.exif_transpose(square)
    except (OSError, ValueError) as error:
        raise ImageUnreadable(f"image: cannot be decoded: {error}") from error
    return np.asarray(square)
