"""The structure of encoded images: walked, counted and bounded before anything is decoded.

Decoders allocate what a header states and work through whatever a file repeats, so both are looked
at first. What decoders trip over and viewers skip (metadata, its checksums, a file's ragged end) is
left out of what they get. Formats whose walk is long, or that are decoded by code of ours, have
files of their own.
"""

import re
import struct
import zlib
from functools import partial

from .bmp import walk_bmp
from .encoded_image import ImageError, ImageLimits, Structure, damaged, format_of
from .jpeg import walk_jpeg
from .tiff import walk_tiff

MAX_CHUNKS = 100_000  # of a PNG; one with a chunk per row has as many as rows
MAX_BLOCKS = 10_000  # before a GIF's first frame

SPATIAL = re.compile(rb"\0\0\0\x14ispe")  # a box with width and height
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
COLOURS = {0: 2, 2: 6}  # bytes of the transparent colour of a PNG's greys, and of its RGB


def examine(encoded: bytes, limits: ImageLimits) -> Structure:
    """Walk through an encoded image.

    Raises:
        ImageError: it is not of a known format, its structure is damaged, or more than is decoded.
    """
    name = format_of(encoded)
    try:
        structure = WALKS[name](encoded, limits)
    except ImageError:
        raise
    except Exception as error:  # mostly, the file ends where a header goes on
        raise ImageError(damaged(name)) from error
    limits.check_size(structure.width, structure.height)
    return structure


def _walk_png(data: bytes, limits: ImageLimits) -> Structure:
    """Keep the chunks that make the picture, and its EXIF."""
    if not data.startswith(PNG_START):
        raise ImageError(damaged("PNG"))
    kept, place, chunks, pixels, exif = [PNG_START], len(PNG_START), 0, False, False
    width = height = palette = 0
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"IEND":
            break
        end = place + 12 + length
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise ImageError(f"the PNG has more than {MAX_CHUNKS} chunks")
        if name == b"IHDR" and chunks == 1:
            width, height = struct.unpack_from(">II", data, place + 8)
            limits.check_size(width, height)
        if name in PNG_CHUNKS:
            part = data[place:end]
            if name == b"PLTE":
                palette = length // 3
            if name == b"tRNS" and (pixels or not _is_transparency(part, data[25], palette)):
                part = b""  # a damaged one is not a reason to refuse the picture
            elif end > len(data):
                part = _chunk(name, part[8:])  # cut short; perhaps all pixels are there
            kept.append(part)
            pixels = pixels or name == b"IDAT"
        elif name == b"eXIf" and not exif and end <= len(data):
            # Without its checksum, which viewers do not look at.
            kept.append(_chunk(name, data[place + 8 : end - 4]))
            exif = True
        elif name in (b"zTXt", b"tEXt"):
            is_exif = data.startswith(b"Raw profile type exif", place + 8)
            if is_exif and length < 2**20 and end <= len(data):
                kept.append(_chunk(name, data[place + 8 : end - 4]))
        elif pixels and not name.isalpha():
            break  # what follows the pixels is not a PNG's
        place = end
    if not width:
        raise ImageError(damaged("PNG"))
    return Structure("PNG", width, height, b"".join([*kept, PNG_END]))


def _is_transparency(part: bytes, colour_type: int, palette: int) -> bool:
    """Whether a PNG's tRNS is what its colours have: libpng passes over others, as browsers do."""
    length = len(part) - 12
    whole = part == _chunk(b"tRNS", part[8:-4])
    if colour_type == 3:
        return whole and 0 < length <= palette
    return whole and COLOURS.get(colour_type) == length


def _chunk(name: bytes, data: bytes) -> bytes:
    """Return a PNG's chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _walk_gif(data: bytes, limits: ImageLimits) -> Structure:
    """Keep the first frame that has pixels, and its transparency, without its canvas."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13
    palette = data[place : place + _palette_bytes(flags)]
    place += _palette_bytes(flags)
    control, blocks = b"", 0
    while True:
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise ImageError(f"the GIF has more than {MAX_BLOCKS} blocks before its first frame")
        kind = data[place]
        if kind == 0x21:
            end = _skip_blocks(data, place + 2)
            if data[place + 1] == 0xF9 and data[place + 2] == 4:
                control = data[place:end]
            place = end
        elif kind == 0x2C:
            left, top, wide, high, local = struct.unpack_from("<HHHHB", data, place + 1)
            end = _skip_blocks(data, place + 10 + _palette_bytes(local) + 1)
            if wide and high:
                break
            place, control = end, b""
        elif kind == 0x3B:
            raise ImageError("the GIF has no frame with pixels")
        else:
            place += 1  # stray bytes
    limits.check_size(wide, high)
    screen = struct.pack("<HHBBB", wide, high, flags & 0xF7, 0, 0)
    frame = b"," + struct.pack("<HHHH", 0, 0, wide, high) + data[place + 9 : end]
    encoded = b"".join([b"GIF89a", screen, palette, control, frame, b"\0;"])
    # As browsers show it: a canvas that its first frame does not fit in grows.
    width, height = max(width, left + wide), max(height, top + high)
    # A file that was cut has no end of its frame's blocks; one that has may have too few pixels.
    complete = end < len(data) or data[-1] == 0
    frame_place = (left, top, wide, high)
    return Structure("GIF", width, height, encoded, complete=complete, place=frame_place)


def _palette_bytes(flags: int) -> int:
    """Return the length of the palette that a GIF's flags state."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, place: int) -> int:
    """Return where a GIF's chain of data blocks ends; a file that ends before is its end."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return min(place + 1, len(data))


def _walk_webp(data: bytes, limits: ImageLimits) -> Structure:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        raise ImageError(damaged("WEBP"))
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = bits % 2**14 + 1, (bits >> 14) % 2**14 + 1
    elif kind == b"VP8 ":
        width, height = (side % 2**14 for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ImageError(damaged("WEBP"))
    return Structure("WEBP", width, height, data)


def still_exif(webp: bytes) -> bytes | None:
    """Return the EXIF of a WebP that is one picture, b"" without; None if it is an animation."""
    place, exif = 12, b""
    for _ in range(100):  # a still picture has five chunks
        name, length = webp[place : place + 4], webp[place + 4 : place + 8]
        if name in (b"ANIM", b"ANMF"):
            return None
        if len(length) < 4:
            return exif
        size = int.from_bytes(length, "little")
        if name == b"EXIF":
            exif = webp[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return None


def _walk_media(data: bytes, limits: ImageLimits, name: str) -> Structure:
    """Read the largest size that an AVIF or HEIC states, its image's or a tile's."""
    sizes = [struct.unpack_from(">II", data, match.end() + 4) for match in SPATIAL.finditer(data)]
    if not sizes:
        raise ImageError(damaged(name))
    for width, height in sizes:
        limits.check_size(width, height)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Structure(name, width, height, data)


def with_transparency(encoded: bytes) -> bytes:
    """Make index 255 of a GIF of one frame, as `examine` has it, transparent if none is.

    What is missing of a frame is transparent then, as it is in a browser.
    """
    flags = encoded[10]
    place = 13 + _palette_bytes(flags)
    before, after = encoded[:place], encoded[place:]
    if after.startswith(b"!\xf9\4"):
        if after[3] & 1:
            return encoded
        after = after[8:]
    return before + b"!\xf9\4\1\0\0\xff\0" + after


WALKS = {
    "JPEG": walk_jpeg,
    "PNG": _walk_png,
    "WEBP": _walk_webp,
    "GIF": _walk_gif,
    "BMP": walk_bmp,
    "TIFF": walk_tiff,
    "AVIF": partial(_walk_media, name="AVIF"),
    "HEIF": partial(_walk_media, name="HEIF"),
}
