"""Writers of image files that Pillow cannot write: odd, damaged, hostile; a corpus of them."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

# The turn that, given to an upright picture, makes the file that carries this orientation.
STORED_AS = {
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}


def png(bits: int, colour_type: int, width: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """Write a PNG; `chunks` come before its pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """Write a PNG's chunk, with a checksum that may be wrong."""
    crc = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def with_chunks(encoded: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind a PNG's header."""
    return encoded[:33] + b"".join(chunks) + encoded[33:]


def tiff(
    tags: dict[int, int | Sequence[int]],
    data: bytes,
    data_tag: int = 273,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """Write a TIFF, BigTIFF if `big`: of one strip or tile, unless `tags` has their offsets."""
    size, entry, word = (20, "HHQ", "Q") if big else (12, "HHI", "I")
    whole = {data_tag: 0, **tags}
    start = 16 if big else 8
    after = start + (8 if big else 2) + size * len(whole) + (8 if big else 4)
    # What does not fit into an entry stands between the directory and the data.
    packed = {}
    for tag, value in whole.items():
        numbers = [value] if isinstance(value, int) else list(value)
        kind = 4 if max(numbers) > 65535 or (tag == data_tag and tag not in tags) else 3
        packed[tag] = (
            kind,
            numbers,
            struct.pack(order + str(len(numbers)) + " HI"[kind - 2], *numbers),
        )
    room = 8 if big else 4
    long = sum(len(raw) for _, _, raw in packed.values() if len(raw) > room)
    offset = after + long
    if data_tag not in tags:
        packed[data_tag] = 4, [offset], struct.pack(order + "I", offset)
    entries, values = [], []
    for tag, (kind, numbers, raw) in sorted(packed.items()):
        head = struct.pack(order + entry, tag, kind, len(numbers))
        if len(raw) > room:
            head += struct.pack(order + word, after + sum(map(len, values)))
            values.append(raw)
        else:
            head += raw.ljust(room, b"\0")
        entries.append(head)
    mark = b"II" if order == "<" else b"MM"
    if big:
        header = mark + struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        header = mark + struct.pack(order + "HI", 42, start)
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    return header + count + b"".join(entries) + bytes(room) + b"".join(values) + data


def gif(
    canvas: tuple[int, int],
    frame: tuple[int, int, int, int],
    pixels: bytes,
    before: bytes = b"",
    background: int = 0,
) -> bytes:
    """Write a GIF of four colours, its codes of three bits never growing.

    Args:
        canvas: width and height.
        frame: left, top, width and height.
        pixels: indices of black, white, red and blue.
        before: blocks before the frame.
        background: an index.
    """
    palette = bytes((0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 255))
    # A clear code (4) before every second pixel keeps codes at three bits.
    codes = [code for pair in range(0, len(pixels), 2) for code in (4, *pixels[pair : pair + 2])]
    bits = "".join(f"{code:03b}"[::-1] for code in [*codes, 5])
    packed = bytes(int(bits[place : place + 8][::-1], 2) for place in range(0, len(bits), 8))
    blocks = b"".join(
        bytes((len(packed[place : place + 255]),)) + packed[place : place + 255]
        for place in range(0, len(packed), 255)
    )
    screen = struct.pack("<HHBBB", *canvas, 0x81, background, 0) + palette
    image = b"," + struct.pack("<HHHHB", *frame, 0) + b"\2" + blocks + b"\0"
    return b"GIF89a" + screen + before + image + b";"


def bmp(
    width: int,
    height: int,
    bits: int,
    compression: int,
    data: bytes,
    palette: bytes = b"",
    masks: Sequence[int] = (),
) -> bytes:
    """Write a BMP whose header has 40 bytes, then masks and palette (blue, green, red, 0)."""
    between = struct.pack(f"<{len(masks)}I", *masks) + palette
    colours = len(palette) // 4
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0
    )
    start = 14 + 40 + len(between)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + between + data


def segment(marker: int, data: bytes) -> bytes:
    """Write a JPEG's segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data


def small_jpeg(**options: object) -> bytes:
    """Return a red JPEG of 16 by 16 pixels."""
    buffer = BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def empty_scans(width: int, height: int, scans: int) -> bytes:
    """Write a grey progressive JPEG whose scans are runs of empty blocks."""
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64)]
    parts.append(segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"))
    parts.append(segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0"))
    parts.append(segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0"))
    blocks = -(-width // 8) * -(-height // 8)
    parts.append(segment(0xDA, b"\1\1\0\0\0\0") + bytes(blocks // 8 + 1))
    bits = ("0" + "1" * 14) * (blocks // 32767 + 2)
    bits += "0" * (-len(bits) % 8)
    run = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    for scan in range(scans - 1):
        frequency = 1 + scan % 63
        parts.append(segment(0xDA, bytes((1, 1, 0, frequency, frequency, 0))) + run)
    return b"".join(parts) + b"\xff\xd9"


def corpus() -> dict[str, bytes]:
    """Return small files of every kind that is read, and of every kind that once went wrong."""
    picture = Image.linear_gradient("L").resize((48, 36))
    picture = Image.merge(
        "RGB", (picture, picture.rotate(180), picture.transpose(2).resize((48, 36)))
    )
    clear = picture.copy()
    clear.putalpha(picture.convert("L"))
    turned = Image.Exif()
    turned[0x112] = 6
    several = {"save_all": True, "append_images": [picture.rotate(180)]}
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    saved = {
        "JPEG": (picture, "JPEG", {"exif": turned}),
        "JPEG progressive": (picture, "JPEG", {"progressive": True}),
        "JPEG CMYK": (picture.convert("CMYK"), "JPEG", {}),
        "MPO": (picture, "MPO", several),
        "PNG": (picture, "PNG", {"exif": turned}),
        "PNG palette": (picture.quantize(16), "PNG", {"transparency": bytes(range(16))}),
        "PNG 16 bits": (deep, "PNG", {}),
        "APNG": (picture, "PNG", several),
        "WEBP": (picture, "WEBP", {"exif": turned}),
        "WEBP lossless": (clear, "WEBP", {"lossless": True}),
        "WEBP animated": (picture, "WEBP", several),
        "GIF": (picture, "GIF", {}),
        "GIF animated": (picture, "GIF", several),
        "BMP": (picture, "BMP", {}),
        "BMP palette": (picture.quantize(16), "BMP", {}),
        "AVIF": (clear, "AVIF", {"speed": 10}),
        "TIFF": (picture, "TIFF", {"exif": turned}),
        "TIFF float": (Image.fromarray(np.asarray(deep) / np.float32(65535)), "TIFF", {}),
        "TIFF 16 bits": (deep, "TIFF", {}),
        "TIFF fax": (picture.convert("1"), "TIFF", {"compression": "group4"}),
    }
    saved |= {
        f"TIFF {name}": (picture, "TIFF", {"compression": name})
        for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    }
    files = {}
    for name, (image, form, options) in saved.items():
        buffer = BytesIO()
        image.save(buffer, form, **options)
        files[name] = buffer.getvalue()
    jpeg, pixels = small_jpeg(), bytes(range(256)) * 12
    plain = {256: 16, 257: 16, 258: (16,) * 3, 259: 1, 262: 2, 277: 3, 278: 16, 279: 1536}
    return files | {
        "BMP masks": bmp(16, 16, 16, 3, pixels[:512], masks=(0xF00, 0xF0, 0xF)),
        "BMP RLE4": bmp(16, 4, 4, 2, b"\0\5\x12\x34\x50\0\x0b\x11\0\0\0\1", bytes(64)),
        "BMP RLE8, wide": bmp(1_000_000, 10, 8, 1, b"\1\1\0\0" * 10 + b"\0\1", bytes(1024)),
        "BMP RLE4, two million wide": bmp(2**21, 4, 4, 2, b"\1\x11\0\1", bytes(64)),
        "GIF of an enormous frame": gif((1, 1), (0, 0, 65535, 65535), b"\1"),
        "GIF of comments": gif((4, 4), (0, 0, 4, 4), bytes(16), b"!\xfe\1x\0" * 2000),
        "GIF of too few pixels": gif((16, 16), (0, 0, 16, 16), bytes(200)),
        "JPEG of segments": jpeg[:2] + segment(0xE1, b"Exif\0\0x") * 2000 + jpeg[2:],
        "JPEG of scans": empty_scans(1600, 1600, 90),
        "JPEG of fill bytes": jpeg[:2] + b"\xff" * 5000 + jpeg[2:],
        "PNG of chunks": with_chunks(files["PNG"], *[chunk(b"teSt", b"")] * 2000),
        "PNG of text": with_chunks(
            files["PNG"], chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))
        ),
        "PNG of RGBA, 16 bits": png(16, 6, 16, [pixels[:128]] * 16),
        "TIFF of 16 bits": tiff(plain, pixels[:1536]),
        "TIFF of 16 bits, big": tiff(plain, pixels[:1536], 273, ">", True),
        "TIFF whose directory lies beyond": b"MM\0\x2b\0\x08\0\0" + b"\xff" * 8,
        "TIFF of signed": tiff(plain | {339: (2,) * 3}, pixels[:1536]),
        "TIFF of 12 bits": tiff(plain | {258: (12,) * 3, 279: 1152}, pixels[:1152]),
        "TIFF of strips": tiff(
            plain | {258: (8,), 277: 1, 262: 1, 278: 1, 273: (8,) * 16, 279: (16,) * 16}, b""
        ),
        "TIFF of a palette": tiff(
            plain | {258: (8,), 277: 1, 262: 3, 279: 256, 320: tuple(range(256)) * 3}, pixels[:256]
        ),
    }
