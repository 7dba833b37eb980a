"""The structure of encoded images: walked, counted and bounded before anything is decoded.

Decoders allocate what a header states and work through whatever a file repeats, so both are looked
at first. What decoders trip over and viewers skip (metadata, its checksums, a file's ragged end) is
left out of what they get. This file does not import Triton or Pillow.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from .encoded_image import ImageError, ImageLimits, format_of

MAX_SCANS = 100  # progressive JPEGs have about ten
MAX_SEGMENTS = 10_000  # before a JPEG's pixels; an ICC profile or EXIF of a megabyte takes 16
MAX_CHUNKS = 100_000  # of a PNG; one with a chunk per row has as many as rows
MAX_BLOCKS = 10_000  # before a GIF's first frame
MAX_STRIPS = 100_000  # strips or tiles of a TIFF
MAX_VALUES = 3 * 2**16  # of any tag that is read: a palette of 16 bits
MAX_ENTRIES = 4096  # tags of a TIFF's directory
# A scan of a JPEG passes every block of eight by eight pixels, whatever its length: this many
# pixels times scans take about a second.
MAX_SCANNED_PIXELS = 2_000_000_000

FILL_BYTES = re.compile(rb"\xff+")
JPEG_MARKER = re.compile(rb"\xff+[^\0\xff\xd0-\xd7]")  # all that interrupts entropy-coded data
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; the others are DHT, JPG, DAC
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
SPATIAL = re.compile(rb"\0\0\0\x14ispe")  # a box with width and height
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
COLOURS = {0: 2, 2: 6}  # bytes of the transparent colour of a PNG's greys, and of its RGB
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TIFF_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


@dataclass
class Structure:
    """What is known of an encoded image before it is decoded.

    Attributes:
        format: one of `FORMATS`.
        width: pixels per row of the canvas.
        height: rows.
        encoded: what the decoder gets: the file without what is of no use to it.
        scans: how often a decoder passes all pixels.
        complete: False if the file ends before its pixels do.
        tags: numbers of a TIFF's first directory, by tag.
        place: left, top, width, height of a GIF's first frame on its canvas.
    """

    format: str
    width: int
    height: int
    encoded: bytes
    scans: int = 1
    complete: bool = True
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)
    place: tuple[int, int, int, int] | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the canvas."""
        return self.width * self.height


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
    check_size(structure.width, structure.height, limits)
    return structure


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Refuse sizes over the limit.

    Raises:
        ImageError: these are more pixels than `limits` has, or none.
    """
    if width <= 0 or height <= 0:
        raise ImageError(f"{width} x {height} pixels: the image has none")
    if width * height > limits.max_pixels:
        limit = f"{limits.max_pixels} (max_pixels)"
        raise ImageError(f"{width} x {height} pixels are over the limit of {limit}")


def damaged(name: str, reason: str = "") -> str:
    """Return the message for a header that cannot be read."""
    article = "an" if name == "AVIF" else "a"
    text = f"it begins like {article} {name}, but its header is truncated or damaged"
    return f"{text} ({reason})" if reason else text


def _walk_jpeg(data: bytes, limits: ImageLimits) -> Structure:
    """Keep what libjpeg decodes by, the first EXIF, and no other metadata."""
    kept, place, segments = [data[:2]], 2, 0
    width = height = frame = 0
    exif = False
    while True:
        start = data.find(b"\xff", place)
        if start < 0:
            raise ImageError(damaged("JPEG"))
        place = FILL_BYTES.match(data, start).end()
        marker, place = data[place], place + 1
        if marker == 0 or marker in STANDALONE or marker == 0xD8:
            continue  # stray bytes
        if marker == 0xD9:
            raise ImageError(damaged("JPEG", "it ends before its pixels"))
        (length,) = struct.unpack_from(">H", data, place)
        segment = data[start : place + length]
        segments += 1
        if segments > MAX_SEGMENTS:
            raise ImageError(f"the JPEG has more than {MAX_SEGMENTS} segments before its pixels")
        if marker in FRAMES:
            bits, height, width = struct.unpack_from(">BHH", data, place + 2)
            frame = marker
            if marker in LOSSLESS:
                raise ImageError(f"a lossless JPEG of {bits} bits; save it as PNG")
            if bits not in (8, 12):
                raise ImageError(damaged("JPEG", f"{bits} bits"))
            if bits == 12:
                raise ImageError("a JPEG of 12 bits; save it with 8")
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0" and not exif:
            kept.append(segment)
            exif = True
        elif marker == 0xE0:
            if segment[4:9] == b"JFIF\0" and length >= 16:
                kept.append(segment)
        elif marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        place += length
        if marker == 0xDA:
            break
    if not frame:
        raise ImageError(damaged("JPEG", "its pixels have no size"))
    check_size(width, height, limits)
    scans, end, complete = _walk_scans(data, start, place, frame, width * height)
    kept += [data[place:end], b"\xff\xd9"]
    return Structure("JPEG", width, height, b"".join(kept), scans, complete)


def _walk_scans(
    data: bytes, start: int, place: int, frame: int, pixels: int
) -> tuple[int, int, bool]:
    """Count a JPEG's scans; find where its data end, and whether they are complete."""
    scans, most = 1, min(MAX_SCANS, max(MAX_SCANNED_PIXELS // pixels, 1))
    headers = [data[start:place]]
    end = len(data)
    ended = False
    for match in JPEG_MARKER.finditer(data, place):
        marker = match[0][-1]
        if marker == 0xDA and _is_scan(data, match.end()):
            scans += 1
            headers.append(data[match.end() - 2 : match.end() + 14])
            if scans > most:
                raise ImageError(f"the JPEG has more than {most} scans")
        elif marker == 0xD9:
            end, ended = match.start(), True
            break
    # The last rows of a baseline JPEG without its end are looked at once they are decoded. Of a
    # progressive one all frequencies of its brightness have to be there.
    if not ended and frame in PROGRESSIVE:
        whole = [header for header in headers[:-1] if _has_all_frequencies(header)]
        if not whole:
            raise ImageError("the JPEG is truncated or damaged (its later scans are missing)")
    return scans, end, ended


def _is_scan(data: bytes, place: int) -> bool:
    """Whether a scan's header starts here: its length fits its count of components."""
    if place + 3 > len(data):
        return False
    length, components = struct.unpack_from(">HB", data, place)
    return 1 <= components <= 4 and length == 6 + 2 * components


def _has_all_frequencies(header: bytes) -> bool:
    """Whether a scan ends at the highest frequency."""
    components = header[4] if len(header) > 4 else 0
    last = 6 + 2 * components
    return len(header) > last and header[last] == 63


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
            check_size(width, height, limits)
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
        elif name == b"zTXt" or name == b"tEXt":
            text = data[place + 8 : place + 8 + 21]
            if text == b"Raw profile type exif" and length < 2**20 and end <= len(data):
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
    palette = b""
    if flags & 0x80:
        palette = data[place : place + 3 * 2 ** (flags % 8 + 1)]
        place += 3 * 2 ** (flags % 8 + 1)
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
            start = place
            place += 10 + (3 * 2 ** (local % 8 + 1) if local & 0x80 else 0)
            end = _skip_blocks(data, place + 1)
            if wide and high:
                break
            place, control = end, b""
        elif kind == 0x3B:
            raise ImageError("the GIF has no frame with pixels")
        else:
            place += 1  # stray bytes
    check_size(wide, high, limits)
    check_size(max(width, left + wide), max(height, top + high), limits)
    screen = struct.pack("<HHBBB", wide, high, flags & 0xF7, 0, 0)
    frame = b"," + struct.pack("<HHHH", 0, 0, wide, high) + data[start + 9 : end]
    encoded = b"".join([b"GIF89a", screen, palette, control, frame, b"\0;"])
    if not width or not height or left + wide > width or top + high > height:
        # As browsers show it: a canvas that its first frame does not fit in grows.
        width, height = max(width, left + wide), max(height, top + high)
    # A file that was cut has no end of its frame's blocks; one that has may have too few pixels.
    complete = end < len(data) or data[-1] == 0
    place = (left, top, wide, high)
    return Structure("GIF", width, height, encoded, complete=complete, place=place)


def _skip_blocks(data: bytes, place: int) -> int:
    """Return where a GIF's chain of data blocks ends; a file that ends before is its end."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return min(place + 1, len(data))


def _walk_bmp(data: bytes, limits: ImageLimits) -> Structure:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    elif 16 <= size <= 255:
        width, height = struct.unpack_from("<ii", data, 18)
    else:
        raise ImageError(damaged("BMP", f"its header has {size} bytes"))
    return Structure("BMP", width, abs(height), data)


def _walk_tiff(data: bytes, limits: ImageLimits) -> Structure:
    tags = dict(_read_directory(data))
    width, height = (tags.get(tag, (0,))[0] for tag in (256, 257))
    tile = tags.get(322, (1,))[0], tags.get(323, (1,))[0]
    if tile != (1, 1):
        check_size(*tile, limits)
    for tag in (258, 277):
        if any(number > 64 for number in tags.get(tag, ())):
            raise ImageError(damaged("TIFF"))
    return Structure("TIFF", width, height, data, tags=tags)


def _read_directory(data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the tags of the first directory whose values are whole numbers, and these."""
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = version == 43
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    if count > MAX_ENTRIES:
        raise ImageError(f"the TIFF has more than {MAX_ENTRIES} tags")
    place += 8 if big else 2
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    for number in range(count):
        here = place + number * (20 if big else 12)
        tag, kind, length = entry.unpack_from(data, here)
        if tag in (273, 279, 324, 325) and length > MAX_STRIPS:
            raise ImageError(f"the TIFF has more than {MAX_STRIPS} strips or tiles")
        if kind not in TIFF_NUMBERS or length > MAX_VALUES:
            continue
        value = here + entry.size
        if length * TIFF_SIZES[kind] > (8 if big else 4):
            (value,) = struct.unpack_from(order + ("Q" if big else "I"), data, value)
        numbers = f"{order}{length}{TIFF_NUMBERS[kind]}"
        if value + struct.calcsize(numbers) <= len(data):
            yield tag, struct.unpack_from(numbers, data, value)


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
        check_size(width, height, limits)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Structure(name, width, height, data)


def with_transparency(encoded: bytes) -> bytes:
    """Make index 255 of a GIF of one frame, as `examine` has it, transparent if none is.

    What is missing of a frame is transparent then, as it is in a browser.
    """
    flags = encoded[10]
    place = 13 + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0)
    before, after = encoded[:place], encoded[place:]
    if after.startswith(b"!\xf9\4"):
        if after[3] & 1:
            return encoded
        after = after[8:]
    return before + b"!\xf9\4\1\0\0\xff\0" + after


WALKS = {
    "JPEG": _walk_jpeg,
    "PNG": _walk_png,
    "WEBP": _walk_webp,
    "GIF": _walk_gif,
    "BMP": _walk_bmp,
    "TIFF": _walk_tiff,
    "AVIF": partial(_walk_media, name="AVIF"),
    "HEIF": partial(_walk_media, name="HEIF"),
}
