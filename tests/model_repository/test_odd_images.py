"""What any viewer shows is decoded: damaged metadata, ragged ends, kinds that few write."""

import struct
import zlib

import numpy as np
import pytest
from experiments.image_files import STORED_AS, chunk, gif, png, segment, with_chunks
from PIL import Image
from ram_triton.server_code import preprocess
from support.pixels import SIZE, near, problem

EXIF_TURNED = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, 6, 0)


# PNG

HUGE = zlib.compress(bytes(3 * 2**20))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"gAMA", struct.pack(">I", 45455), crc=1),
        chunk(b"tEXt", b"Comment\0text", crc=0),
        chunk(b"sRGB", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"cHRM", b"short"),
        chunk(b"iCCP", b"name\0\0no zlib"),
        chunk(b"iCCP", b"name\0\0" + HUGE),
        chunk(b"zTXt", b"Comment\0\0" + HUGE),
        chunk(b"zTXt", b"Comment\0\5unknown"),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + HUGE),
        chunk(b"acTL", struct.pack(">II", 5, 0)),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", bytes(3)),
        chunk(b"eXIf", b"II", crc=3),
        chunk(b"tRNS", bytes(99), crc=4),
        chunk(b"tRNS", bytes(99)),
        chunk(b"tRNS", b""),
        chunk(b"vpAg", b"unknown") * 50,
    ],
)
def test_a_pngs_metadata_may_be_damaged_unknown_or_huge(odd, photo, encode):
    encoded = encode(photo)
    near(with_chunks(encoded, odd), encoded, 0)


@pytest.mark.parametrize(
    "chunks",
    [
        lambda colours: [colours, chunk(b"tRNS", bytes(3))],
        lambda colours: [colours, chunk(b"tRNS", b"")],
        lambda colours: [chunk(b"tRNS", bytes(2)), colours],
        lambda colours: [colours, chunk(b"IDAT", b""), chunk(b"tRNS", bytes(2))],
    ],
    ids=["more than colours", "none", "before the colours", "after pixels"],
)
def test_transparency_that_a_palette_cannot_have_is_ignored(chunks):
    rows = [bytes([0, 1] * 4)] * 8
    colours = chunk(b"PLTE", bytes([200, 30, 40, 10, 20, 30]))
    near(png(8, 3, 8, rows, *chunks(colours)), png(8, 3, 8, rows, colours), 0)


@pytest.mark.parametrize(
    "end", [b"", b"\0\0", b"\0\0\0\0IE", b"\0\0\1\0tEXthalf a ch", b"garbage" * 9]
)
def test_a_pngs_end_may_be_missing_or_ragged(end, photo, encode):
    encoded = encode(photo)
    near(encoded[:-12] + end, encoded, 0)
    near(encoded + end, encoded, 0)


def test_a_pngs_own_chunks_have_to_be_right(photo, encode):
    encoded = encode(photo)
    assert "PNG" in problem(encoded[:29] + b"oops" + encoded[33:])  # the header's checksum
    assert "truncated or damaged" in problem(encoded[: len(encoded) * 9 // 10])


# JPEG


@pytest.mark.parametrize(
    "odd",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE0, b""),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"Exif"),
        segment(0xE2, b"ICC_PROFILE\0\5\1no profile"),
        segment(0xE2, b"MPF\0no index"),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xEC, b"Ducky"),
        segment(0xFE, b"a comment"),
        b"\0\1\2\3\4\5\6\7",
        b"\xff\xff\xff",
        b"\xff\0",
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpegs_metadata_may_be_damaged_and_bytes_stray(odd, progressive, photo, encode):
    encoded = encode(photo, "JPEG", progressive=progressive)
    near(encoded[:2] + odd + encoded[2:], encoded, 0)


def test_the_first_exif_of_a_jpeg_counts_and_adobes_colours_too(photo, encode):
    encoded = encode(photo, "JPEG")
    turned = encoded[:2] + segment(0xE1, EXIF_TURNED) * 2 + encoded[2:]
    near(turned, photo.transpose(Image.Transpose.ROTATE_270), 12)
    near(encode(photo.convert("CMYK"), "JPEG", quality=95), photo, 12)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end(progressive, photo, encode):
    large = photo.resize((640, 480))
    encoded = encode(large, "JPEG", progressive=progressive, quality=90)
    for missing in (1, 2, 3, 10):
        near(encoded[:-missing], encoded, 60)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_may_lack_its_last_rows_and_no_more(mode, photo, encode):
    tall = photo.resize((200, 2000)).convert(mode)
    encoded = encode(tall, "JPEG", quality=90)
    assert preprocess(encoded[: int(len(encoded) * 0.98)], SIZE).shape == (SIZE, SIZE, 3)
    for share in (0.8, 0.5, 0.2):
        message = problem(encoded[: int(len(encoded) * share)])
        assert "the JPEG is truncated or damaged (its last rows are missing" in message


def test_a_progressive_jpeg_may_lack_its_last_scans_and_not_the_first(photo, encode):
    encoded = encode(photo.resize((640, 480)), "JPEG", progressive=True, quality=90)
    scans = [place for place in range(len(encoded)) if encoded[place : place + 2] == b"\xff\xda"]
    near(encoded[: scans[-1] + 40], encoded, 40)
    assert "its later scans are missing" in problem(encoded[: scans[1] + 40])


@pytest.mark.parametrize("marker, bits", [(0xC3, 16), (0xC3, 8), (0xC7, 12)])
def test_a_lossless_jpeg_is_named(marker, bits, photo, encode):
    encoded = encode(photo, "JPEG")
    place = encoded.index(b"\xff\xc0")
    odd = encoded[: place + 1] + bytes((marker,)) + encoded[place + 2 : place + 4]
    message = problem(odd + bytes((bits,)) + encoded[place + 5 :])
    assert message == f"a lossless JPEG of {bits} bits; save it as PNG"


# GIF

CHECKS = bytes((x // 4 + y // 4) % 4 for y in range(12) for x in range(16))
COLOURS = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)], np.uint8)
CHECKED = Image.fromarray(COLOURS[np.frombuffer(CHECKS, np.uint8).reshape(12, 16)])


def test_a_gif_written_by_hand_is_what_pillow_decodes():
    near(gif((16, 12), (0, 0, 16, 12), CHECKS), CHECKED)


@pytest.mark.parametrize("background", [0, 1, 2])
def test_what_a_gifs_first_frame_leaves_free_is_white_whatever_the_background(background):
    canvas = Image.new("RGB", (24, 20), "white")
    canvas.paste(CHECKED, (5, 3))
    near(gif((24, 20), (5, 3, 16, 12), CHECKS, background=background), canvas)


@pytest.mark.parametrize("canvas", [(0, 0), (1, 1), (10, 30)])
def test_a_gifs_canvas_grows_with_its_frame(canvas):
    larger = Image.new("RGB", (max(canvas[0], 16), max(canvas[1], 12)), "white")
    larger.paste(CHECKED, (0, 0))
    near(gif(canvas, (0, 0, 16, 12), CHECKS), larger)


def test_a_gifs_frames_of_no_size_are_skipped():
    empty = b"," + struct.pack("<HHHHB", 0, 0, 0, 0, 0) + b"\2\0"
    near(gif((16, 12), (0, 0, 16, 12), CHECKS, before=empty * 3), CHECKED)
    nothing = gif((16, 12), (0, 0, 0, 0), b"")
    assert problem(nothing) == "the GIF has no frame with pixels"


def test_a_gif_may_have_too_few_pixels_and_the_rest_is_white():
    canvas = CHECKED.copy()
    canvas.paste((255, 255, 255), (0, 9, 16, 12))
    near(gif((16, 12), (0, 0, 16, 12), CHECKS[: 9 * 16]), canvas)
    clear = b"!\xf9\4\1\0\0\1\0"
    near(gif((16, 12), (0, 0, 16, 12), CHECKS[: 9 * 16], before=clear), canvas)
    assert "the GIF is truncated or damaged" in problem(gif((16, 12), (0, 0, 16, 12), CHECKS[:40]))


def test_a_gif_may_lack_its_trailer(photo, encode):
    encoded = encode(photo, "GIF")
    near(encoded[:-1], encoded, 0)
    near(encoded + b"garbage", encoded, 0)


# WebP


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_webps_take_another_way_to_the_same_pixels(orientation, photo, encode):
    exif = Image.Exif()
    exif[0x112] = orientation
    large = photo.resize((4800, 3600)).convert("RGBA")
    large.putalpha(200)
    stored = STORED_AS[orientation](large)
    options = {"lossless": True, "quality": 0, "method": 0}
    white = Image.alpha_composite(Image.new("RGBA", large.size, "white"), large)
    near(encode(stored, "WEBP", exif=exif, **options), white, 2)


# AVIF


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_avif_is_read(mode, photo, encode):
    image = photo.copy()
    if mode == "RGBA":
        image.putalpha(200)
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    near(encode(image, "AVIF", quality=95, speed=8), white, 16)


def test_png_written_by_hand_is_what_pillow_decodes(photo):
    small = photo.resize((9, 5))
    near(png(8, 2, 9, [row.tobytes() for row in np.asarray(small)]), small)
