"""BMPs: their size, and the kinds that Pillow refuses, decodes wrongly, or a byte at a time.

These are run lengths (RLE4, RLE8), masks (16 and 32 bits) and pictures whose alpha channel is zero
everywhere. As Microsoft's description of BITMAPINFOHEADER and its successors has them.
"""

import struct

import numpy as np
from PIL import Image

from .encoded_image import ImageError, ImageLimits, Structure, damaged, refuse_missing

RGB, RLE8, RLE4, BITFIELDS, JPEG, PNG, ALPHABITFIELDS = 0, 1, 2, 3, 4, 5, 6
# Of pixels without a mask of their own: X1R5G5B5 and X8R8G8B8.
USUAL_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


def walk_bmp(data: bytes, limits: ImageLimits) -> Structure:
    """Read the size."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    elif 16 <= size <= 255:
        width, height = struct.unpack_from("<ii", data, 18)
    else:
        raise ImageError(damaged("BMP", f"its header has {size} bytes"))
    return Structure("BMP", width, abs(height), data)


def is_unusual_bmp(data: bytes) -> bool:
    """Whether a BMP is one that `read_bmp` decodes."""
    if struct.unpack_from("<I", data, 14)[0] < 40:
        return False
    bits, compression = struct.unpack_from("<HI", data, 28)
    return compression != RGB or bits in (16, 32)


def read_bmp(data: bytes) -> Image.Image:
    """Decode an unusual BMP to RGB, or RGBA if its alpha channel is not zero everywhere.

    Raises:
        ImageError: it is of a kind that does not exist, or too many of its pixels are missing.
    """
    header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    (start,) = struct.unpack_from("<I", data, 10)
    (colours,) = struct.unpack_from("<I", data, 46)
    kind = (compression, bits)
    rows = abs(height)
    if kind in ((RLE8, 8), (RLE4, 4)):
        palette = _palette(data, 14 + header, colours or 2**bits)
        indices = _unpack_runs(data, start, width, rows, bits)
        image = Image.fromarray(indices, "P")
        image.putpalette(palette)
        image = image.convert("RGB")
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if height > 0 else image
    if compression in (RGB, BITFIELDS, ALPHABITFIELDS) and bits in USUAL_MASKS:
        masks = USUAL_MASKS[bits] if compression == RGB else _masks(data, header, compression)
        return _read_masked(data[start:], width, height, bits, masks)
    name = {JPEG: "with JPEG inside", PNG: "with PNG inside"}.get(
        compression, f"of compression {compression} with {bits} bits"
    )
    raise ImageError(f"the BMP is one {name}; save it without compression")


def _palette(data: bytes, start: int, colours: int) -> bytes:
    entries = np.frombuffer(data[start : start + 4 * min(colours, 256)], np.uint8)
    entries = entries[: len(entries) // 4 * 4].reshape(-1, 4)
    return entries[:, 2::-1].tobytes().ljust(768, b"\0")


def _masks(data: bytes, header: int, compression: int) -> tuple[int, ...]:
    """Return the masks of red, green, blue and alpha, which follow the first 40 bytes."""
    masks = struct.unpack_from("<4I", data.ljust(14 + 40 + 16, b"\0"), 14 + 40)
    return masks if header >= 56 or compression == ALPHABITFIELDS else (*masks[:3], 0)


def _read_masked(
    data: bytes, width: int, height: int, bits: int, masks: tuple[int, ...]
) -> Image.Image:
    """Decode rows of 16 or 32 bits per pixel, which start at multiples of four bytes."""
    kind = np.dtype(f"<u{bits // 8}")
    stride, rows = (width * bits // 8 + 3) // 4 * 4, abs(height)
    there = min(len(data) // stride, rows)
    refuse_missing("BMP", 1 - there / rows)
    opaque = masks[3] == 0
    image = np.full((rows, width, 3 if opaque else 4), 255, np.uint8)
    for first in range(0, there, 256):  # in bands, for the memory of what is between
        last = min(first + 256, there)
        band = np.frombuffer(data[first * stride : last * stride], np.uint8)
        pixels = band.reshape(-1, stride)[:, : width * bits // 8].view(kind).astype(np.uint32)
        for channel, mask in enumerate(masks[: image.shape[2]]):
            image[first:last, :, channel] = _scale(pixels, mask)
    if height > 0:
        image = image[::-1]
    if not opaque and not image[:, :, 3].any():  # a channel that nobody wrote
        image = image[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(image))


def _scale(pixels: np.ndarray, mask: int) -> np.ndarray:
    """Return a mask's part of the pixels, as 0 to 255."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    values = (pixels & np.uint32(mask)) >> np.uint32(shift)
    return np.rint(values * np.float32(255 / most)).astype(np.uint8)


def _unpack_runs(data: bytes, place: int, width: int, rows: int, bits: int) -> np.ndarray:
    """Unpack RLE4 or RLE8 to palette indices, (rows, width) uint8, as they are stored.

    What a file skips or does not have is index 0.
    """
    flat = bytearray(width * rows)
    column = row = 0
    end = len(data)
    while row < rows:
        if place + 2 > end:
            refuse_missing("BMP", (rows - row) / rows)
            break
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            run = bytes((value,)) if bits == 8 else bytes((value >> 4, value & 15))
            run *= count
            pixels = run[: min(count, width - column)]
        elif value == 0:
            column, row = 0, row + 1
            continue
        elif value == 1:
            break
        elif value == 2:
            if place + 2 <= end:
                column, row = min(column + data[place], width), row + data[place + 1]
            place += 2
            continue
        else:
            size = value if bits == 8 else (value + 1) // 2
            run = data[place : place + size]
            if bits == 4:
                run = bytes(half for byte in run for half in (byte >> 4, byte & 15))
            pixels = run[: min(value, width - column)]
            place += size + size % 2
        start = row * width + column
        flat[start : start + len(pixels)] = pixels
        column += len(pixels)
    return np.frombuffer(flat, np.uint8).reshape(rows, width)
