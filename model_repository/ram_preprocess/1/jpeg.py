"""JPEGs: their segments and scans before they are decoded, and the rows that are missing then."""

import re
import struct

import numpy as np
from PIL import Image

from .encoded_image import ImageError, ImageLimits, Structure, damaged, refuse_missing

MAX_SCANS = 100  # progressive JPEGs have about ten
MAX_SEGMENTS = 10_000  # before the pixels; an ICC profile or EXIF of a megabyte takes 16
# A scan passes every block of eight by eight pixels, whatever its length: this many pixels times
# scans take about a second.
MAX_SCANNED_PIXELS = 2_000_000_000

FILL_BYTES = re.compile(rb"\xff+")
MARKER = re.compile(rb"\xff+[^\0\xff\xd0-\xd7]")  # all that interrupts entropy-coded data
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; the others are DHT, JPG, DAC
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
STRAY = {0x00, 0x01, *range(0xD0, 0xD9)}  # without a length; RST0 to RST7 and a second start too
START_OF_SCAN, END = 0xDA, 0xD9
APP0, APP1, ADOBE = 0xE0, 0xE1, 0xEE
METADATA = {*range(0xE0, 0xF0), 0xFE}
MISSING_GREY = 128  # what libjpeg puts where data are missing


def walk_jpeg(data: bytes, limits: ImageLimits) -> Structure:
    """Keep what libjpeg decodes by, the first EXIF, and no other metadata."""
    kept, place = [data[:2]], 2
    width = height = frame = marker = segments = 0
    has_exif = False
    while marker != START_OF_SCAN:
        start = data.find(b"\xff", place)
        if start < 0:
            raise ImageError(damaged("JPEG"))
        place = FILL_BYTES.match(data, start).end()
        marker, place = data[place], place + 1
        if marker in STRAY:
            continue
        if marker == END:
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
            if bits == 12:
                raise ImageError("a JPEG of 12 bits; save it with 8")
            if bits != 8:
                raise ImageError(damaged("JPEG", f"{bits} bits"))
        is_exif = marker == APP1 and segment[4:10] == b"Exif\0\0" and not has_exif
        is_jfif = marker == APP0 and segment[4:9] == b"JFIF\0" and length >= 16
        if is_exif or is_jfif or marker == ADOBE or marker not in METADATA:
            kept.append(segment)
        has_exif = has_exif or is_exif
        place += length
    if not frame:
        raise ImageError(damaged("JPEG", "its pixels have no size"))
    limits.check_size(width, height)
    scans, end, complete = _walk_scans(data, start, place, frame, width * height)
    kept += [data[place:end], b"\xff\xd9"]
    return Structure("JPEG", width, height, b"".join(kept), scans, complete)


def _walk_scans(
    data: bytes, start: int, place: int, frame: int, pixels: int
) -> tuple[int, int, bool]:
    """Count a JPEG's scans; find where its data end, and whether they are complete."""
    scans, most = 1, min(MAX_SCANS, max(MAX_SCANNED_PIXELS // pixels, 1))
    headers = [data[start:place]]
    end, ended = len(data), False
    for match in MARKER.finditer(data, place):
        marker = match[0][-1]
        if marker == START_OF_SCAN and _is_scan(data, match.end()):
            scans += 1
            headers.append(data[match.end() - 2 : match.end() + 14])
            if scans > most:
                raise ImageError(f"the JPEG has more than {most} scans")
        elif marker == END:
            end, ended = match.start(), True
            break
    # The last rows of a baseline JPEG without its end are looked at once they are decoded. Of a
    # progressive one all frequencies of its brightness have to be there.
    if not ended and frame in PROGRESSIVE and not any(map(_has_all_frequencies, headers[:-1])):
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


def check_rows(image: Image.Image) -> None:
    """Refuse a decoded JPEG without its end if too many rows are missing.

    Raises:
        ImageError: more than `MISSING_ROWS` of them are.
    """
    rows = np.asarray(image).reshape(image.height, -1).astype(np.int16)
    there = np.flatnonzero((abs(rows - MISSING_GREY) > 1).any(axis=1))
    refuse_missing("JPEG", 1 - (there[-1] + 1 if len(there) else 0) / image.height)
