"""No small file holds the server: what a file repeats or claims is counted before it is decoded."""

import base64
import struct
import time
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from experiments.image_files import bmp, chunk, empty_scans, gif, png, segment, small_jpeg, tiff
from PIL import Image
from ram_triton.server_code import ImageError, jpegs, preprocess, structure, tiffs
from support.pixels import FORMATS, LIMITS, SIZE, problem

COMMENT = b"!\xfe\1x\0"
ONE = b"\1"


def quote_all(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in data)


def many_strips(count: int, tag: int = 273) -> bytes:
    """A TIFF of one column whose strips all are its byte 8, the count of its tags."""
    tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1, 279: (1,) * count}
    return tiff({**tags, tag: (8,) * count}, b"")


def test_runs_of_a_wide_bmp_take_no_longer_than_its_pixels():
    started = time.process_time()
    wide = bmp(1_000_000, 20, 8, 1, b"\1\1\0\0" * 20 + b"\0\1", bytes((9, 8, 7, 0)) * 256)
    assert (preprocess(wide, SIZE) == (7, 8, 9)).all()
    assert time.process_time() - started < 5  # Pillow takes 3 s for these 20 megapixels


def test_jumps_and_runs_past_a_bmps_edges_stay_inside():
    runs = b"\xff\1" * 3 + b"\0\2\xff\0" + b"\xff\2" + b"\0\2\0\xff" + b"\xff\3"
    for bits, compression in ((8, 1), (4, 2)):
        pixels = preprocess(bmp(7, 5, bits, compression, runs, bytes(64)), SIZE)
        assert pixels.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("before", [COMMENT, b"!\xff\1x\0", b"!\xf9\4\0\0\0\0\0", b"\0"])
def test_a_gif_of_very_many_blocks_is_refused(before):
    count = structure.MAX_BLOCKS
    assert (preprocess(gif((2, 2), (0, 0, 2, 2), b"\1\1\1\1", before * 100), SIZE) == 255).all()
    with pytest.raises(ImageError, match=f"more than {count} blocks before its first frame"):
        preprocess(gif((2, 2), (0, 0, 2, 2), b"\1\1\1\1", before * (count + 1)), SIZE)


@pytest.mark.parametrize(
    "canvas, frame",
    [
        ((1, 1), (0, 0, 65535, 65535)),
        ((1, 1), (65535, 0, 65535, 3000)),
        ((65535, 65535), (0, 0, 1, 1)),
        ((1, 1), (65535, 65535, 1, 1)),
    ],
)
def test_a_gif_whose_canvas_or_frame_is_too_large_is_refused(canvas, frame):
    with pytest.raises(ImageError, match=r"\d+ x \d+ pixels are over the limit"):
        preprocess(gif(canvas, frame, ONE), SIZE)


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE, 0xDB])
def test_a_jpeg_of_very_many_segments_is_refused(marker):
    jpeg = small_jpeg()
    body = b"Exif\0\0x" if marker == 0xE1 else b"\0" + bytes(range(1, 65))
    few = jpeg[:2] + segment(marker, body) * 100 + jpeg[2:]
    assert preprocess(few, SIZE).shape == (SIZE, SIZE, 3)
    many = jpeg[:2] + segment(marker, body) * jpegs.MAX_SEGMENTS + jpeg[2:]
    with pytest.raises(ImageError, match="segments before its pixels"):
        preprocess(many, SIZE)


def test_fill_bytes_of_a_jpeg_are_skipped_at_once():
    jpeg = small_jpeg()
    pixels = preprocess(jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:], SIZE)
    np.testing.assert_array_equal(pixels, preprocess(jpeg, SIZE))


def test_scans_are_bounded_by_their_number_and_by_the_pixels_that_they_pass():
    assert preprocess(empty_scans(800, 600, jpegs.MAX_SCANS), SIZE).shape == (SIZE, SIZE, 3)
    with pytest.raises(ImageError, match=f"more than {jpegs.MAX_SCANS} scans"):
        preprocess(empty_scans(800, 600, jpegs.MAX_SCANS + 1), SIZE)
    with pytest.raises(ImageError, match="the JPEG has more than 20 scans"):
        preprocess(empty_scans(10_000, 9_999, 21), SIZE)


@pytest.mark.parametrize("name", [b"teSt", b"tEXt", b"IDAT"])
def test_a_png_of_very_many_chunks_is_refused(name):
    rows = [b"\x7f"]
    few = png(8, 0, 1, rows, *[chunk(b"teSt", b"")] * 1000)
    assert (preprocess(few, SIZE) == 127).all()
    many = png(8, 0, 1, rows, *[chunk(name, b"")] * (structure.MAX_CHUNKS + 1))
    with pytest.raises(ImageError, match=f"more than {structure.MAX_CHUNKS} chunks"):
        preprocess(many, SIZE)


def test_a_tiff_of_very_many_strips_is_refused():
    assert (preprocess(many_strips(500), SIZE) == 9).all()
    for tag in (273, 324):
        with pytest.raises(ImageError, match=f"more than {tiffs.MAX_STRIPS} strips or tiles"):
            preprocess(many_strips(tiffs.MAX_STRIPS + 1, tag), SIZE)


def test_a_tiff_of_very_many_tags_is_refused():
    tags = dict.fromkeys(range(1000, 1000 + tiffs.MAX_ENTRIES), 1)
    with pytest.raises(ImageError, match=f"more than {tiffs.MAX_ENTRIES} tags"):
        preprocess(tiff({**tags, 256: 1, 257: 1}, ONE), SIZE)


def webp(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def enormous_bmp() -> bytes:
    return bmp(100_000, 100_000, 8, 1, b"\0\1", bytes(1024))


def enormous_tiff(tag: int) -> bytes:
    tags = {256: 100_000, 257: 100_000, 258: 8, 259: 8, 262: 1, 277: 1, 279: 9}
    if tag == 322:
        tags |= {256: 16, 257: 16, 322: 100_000, 323: 100_000}
    return tiff(tags, zlib.compress(bytes(9)))


@pytest.mark.parametrize(
    "encoded",
    [
        webp(16_384, 16_384),
        enormous_bmp(),
        enormous_tiff(256),
        enormous_tiff(322),
        empty_scans(16, 16, 1).replace(b"\x08\0\x10\0\x10", b"\x08\xff\xff\xff\xff"),
    ],
)
def test_sizes_are_read_before_a_library_sees_the_file(encoded, monkeypatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ImageError, match=r"\d+ x \d+ pixels are over the limit of 100000000"):
        preprocess(encoded, SIZE)


def test_images_without_pixels_are_refused(encode):
    header = struct.pack(">IIBBBBB", 0, 9, 8, 0, 0, 0, 0)
    nothing = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(ImageError, match="the image has no pixels: 0 x 9"):
        preprocess(nothing, SIZE)
    with pytest.raises(ImageError, match="the image has no pixels: 0 x 0"):
        preprocess(bmp(0, 0, 8, 1, b"\0\1"), SIZE)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_limit_of_pixels_is_exact(mode, encode):
    encoded = encode(Image.new(mode, (100, 50)))
    assert preprocess(encoded, SIZE, replace(LIMITS, max_pixels=5000)).shape == (SIZE, SIZE, 3)
    with pytest.raises(ImageError, match="100 x 50 pixels are over the limit of 4999"):
        preprocess(encoded, SIZE, replace(LIMITS, max_pixels=4999))


def test_an_image_over_the_limit_of_bytes_is_refused(photo, encode):
    encoded = encode(photo, "PNG")
    preprocess(encoded, SIZE, replace(LIMITS, max_bytes=len(encoded)))
    message = problem(encoded, replace(LIMITS, max_bytes=len(encoded) - 1))
    assert f"{len(encoded)} bytes are over the limit of {len(encoded) - 1} (max_bytes)" in message


def test_the_limit_of_bytes_holds_for_the_image_and_not_for_its_base64_text(photo, encode):
    encoded = encode(photo, "PNG")
    limits = replace(LIMITS, max_bytes=len(encoded))
    preprocess(base64.encodebytes(encoded), SIZE, limits)
    preprocess(b"data:image/png," + quote_all(encoded), SIZE, limits)
    assert "max_bytes" in problem(base64.b64encode(encoded + b"\0"), limits)
    assert "max_bytes" in problem(b"A" * (3 * len(encoded) + 1001), limits)


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_over_the_limit_of_pixels_is_refused(name, photo, encode):
    encoded = encode(photo, name)
    preprocess(encoded, SIZE, replace(LIMITS, max_pixels=160 * 120))
    message = problem(encoded, replace(LIMITS, max_pixels=160 * 120 - 1))
    assert "160 x 120 pixels are over the limit of 19199 (max_pixels)" in message


def test_a_decompression_bomb_is_refused_without_decoding_it(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    bomb = png(8, 2, 60_000, [b""]).replace(
        struct.pack(">II", 60_000, 1), struct.pack(">II", 60_000, 60_000)
    )
    header = bomb[12:29]
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(header)) + bomb[33:]
    assert "60000 x 60000 pixels are over the limit" in problem(bomb)


def test_a_small_tiff_of_one_enormous_tile_is_refused():
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 325: 9}
    message = problem(tiff(tags, zlib.compress(bytes(9)), data_tag=324))
    assert "40000 x 40000 pixels are over the limit" in message


def test_a_jpeg_of_thousands_of_scans_is_refused(photo, encode):
    encoded = encode(photo, "JPEG", progressive=True)
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    bomb = encoded[:-2] + scan * jpegs.MAX_SCANS + encoded[-2:]
    assert problem(bomb) == f"the JPEG has more than {jpegs.MAX_SCANS} scans"


def test_an_image_within_the_limits_is_decoded_without_pillows_own_limit(encode):
    # Pillow alone warns above 89 megapixels, and refuses twice as many.
    encoded = encode(Image.new("1", (12_000, 8_000), 1), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (preprocess(encoded, SIZE, LIMITS) == 255).all()
