"""What any viewer shows is decoded: damaged metadata, ragged ends, kinds that few write."""

import struct
import zlib
from itertools import product

import numpy as np
import pytest
from experiments.image_files import STORED_AS, bmp, chunk, gif, png, segment, tiff, with_chunks
from PIL import Image
from ram_triton.server_code import ImageError, preprocess

SIZE = 32
EXIF_TURNED = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, 6, 0)


def near(encoded: bytes, expected: bytes | Image.Image, levels: int = 1) -> None:
    """Compare what two files give; a picture is squashed by Pillow."""
    pixels = preprocess(encoded, SIZE).astype(int)
    if isinstance(expected, Image.Image):
        square = expected.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        other = np.asarray(square).astype(int)
    else:
        other = preprocess(expected, SIZE).astype(int)
    assert abs(pixels - other).max() <= levels


def problem(encoded: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        preprocess(encoded, SIZE)
    return str(caught.value)


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


# BMP

MASKS = {
    "444": (16, (0xF00, 0xF0, 0xF)),
    "565": (16, (0xF800, 0x7E0, 0x1F)),
    "555": (16, (0x7C00, 0x3E0, 0x1F)),
    "332": (16, (0xE0, 0x1C, 0x3)),
    "101010": (32, (0x3FF00000, 0xFFC00, 0x3FF)),
    "888 reversed": (32, (0xFF, 0xFF00, 0xFF0000)),
    "888 at the top": (32, (0xFF000000, 0xFF0000, 0xFF00)),
}


@pytest.mark.parametrize("name, top_down", [*product(MASKS, (False, True))])
def test_a_bmps_masks_may_be_any(name, top_down, photo):
    bits, masks = MASKS[name]
    small = np.asarray(photo.resize((15, 9))).astype(np.float64)
    packed = np.zeros(small.shape[:2], np.uint32)
    shown = np.empty_like(small)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        level = np.rint(small[..., channel] / 255 * (mask >> shift)).astype(np.uint32)
        packed |= level << np.uint32(shift)
        shown[..., channel] = np.rint(level * 255 / (mask >> shift))
    rows = np.zeros((9, 16), f"<u{bits // 8}")
    rows[:, :15] = packed if top_down else packed[::-1]
    data = rows.tobytes() if bits == 16 else rows[:, :15].tobytes()
    encoded = bmp(15, -9 if top_down else 9, bits, 3, data, masks=masks)
    near(encoded, Image.fromarray(shown.astype(np.uint8)))


def runs(indices: np.ndarray, bits: int, absolute: int) -> bytes:
    """Encode rows, from the last to the first: runs, or `absolute` pixels as they are."""
    out = b""
    for row in indices[::-1]:
        place = 0
        while place < len(row):
            part = row[place : place + absolute]
            place += len(part)
            if len(part) < 3:
                out += b"".join(bytes((1, i if bits == 8 else i << 4)) for i in part.tolist())
                continue
            packed = part.tobytes()
            if bits == 4:
                pairs = part.tolist() + [0] * (len(part) % 2)
                packed = bytes(a << 4 | b for a, b in zip(pairs[::2], pairs[1::2], strict=True))
            out += bytes((0, len(part))) + packed + bytes(len(packed) % 2)
        out += b"\0\0"
    return out + b"\0\1"


@pytest.mark.parametrize("bits, absolute", [*product((4, 8), (1, 3, 4, 5, 7, 20))])
def test_a_bmps_runs_may_have_any_length(bits, absolute, photo):
    image = photo.resize((21, 13)).quantize(16 if bits == 4 else 200)
    palette = np.asarray(image.getpalette()[: 3 * 2**bits], np.uint8).reshape(-1, 3)
    entries = b"".join(bytes((*colour[::-1].tolist(), 0)) for colour in palette)
    data = runs(np.asarray(image), bits, absolute)
    near(bmp(21, 13, bits, 3 - bits // 4, data, entries.ljust(4 * 2**bits, b"\0")), image)


def test_a_bmps_alpha_channel_that_nobody_wrote_is_not_transparency(photo):
    small = np.asarray(photo.resize((8, 6)))
    for alpha, expected in ((0, small), (255, small), (None, None)):
        pixels = np.zeros((6, 8, 4), np.uint8)
        pixels[..., :3] = small[::-1, :, ::-1]
        pixels[..., 3] = np.arange(48).reshape(6, 8) * 5 if alpha is None else alpha
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, 8, 6, 1, 32, 3, 192, 0, 0, 0, 0)
        header += struct.pack("<4I", *masks) + bytes(108 - 56)
        encoded = b"BM" + struct.pack("<IHHI", 122 + 192, 0, 0, 122) + header + pixels.tobytes()
        if expected is None:
            expected = Image.fromarray(pixels[::-1, :, [2, 1, 0, 3]])
            white = Image.new("RGBA", (8, 6), "white")
            near(encoded, Image.alpha_composite(white, expected), 2)
        else:
            near(encoded, Image.fromarray(expected))


@pytest.mark.parametrize("compression, name", [(4, "with JPEG inside"), (9, "of compression 9")])
def test_bmps_that_are_not_read_are_named(compression, name):
    assert name in problem(bmp(8, 8, 24, compression, bytes(192)))


def test_a_truncated_bmp_of_an_odd_kind_is_told():
    full = bmp(8, 100, 16, 3, bytes(1600), masks=MASKS["565"][1])
    assert preprocess(full[:-32], SIZE).shape == (SIZE, SIZE, 3)
    assert "the BMP is truncated or damaged (its last rows" in problem(full[:-800])


# TIFF

W, H = 24, 18


@pytest.fixture
def levels(photo) -> np.ndarray:
    """Levels 0 to 1, (H, W, 3)."""
    return np.asarray(photo.resize((W, H))) / 255


def base(bits: int, samples: int, colours: int, data: bytes, **more: int) -> dict:
    tags = {256: W, 257: H, 258: (bits,) * samples, 259: 1, 262: colours, 277: samples}
    return {**tags, 278: H, 279: len(data), **{int(tag[1:]): v for tag, v in more.items()}}


def samples(levels: np.ndarray, bits: int, kind: int, order: str) -> bytes:
    if kind == 3:
        return levels.astype(f"{order}f{bits // 8}").tobytes()
    white = 2 ** (bits - (kind == 2)) - 1
    return np.rint(levels * white).astype(f"{order}{'ui'[kind - 1]}{bits // 8}").tobytes()


KINDS = [
    *product((8, 16, 32), (1, 2)),
    (32, 3),
    (64, 3),
    (16, 3),
]


@pytest.mark.parametrize("order, big", [*product("<>", (False, True))])
@pytest.mark.parametrize("bits, kind", KINDS)
@pytest.mark.parametrize("colours", [0, 1, 2])
def test_tiffs_of_whole_bytes(colours, bits, kind, order, big, levels):
    values = levels if colours == 2 else levels[..., :1]
    data = samples(1 - values if colours == 0 else values, bits, kind, order)
    count = values.shape[2]
    encoded = tiff(base(bits, count, colours, data, _339=(kind,) * count), data, 273, order, big)
    shown = np.rint(255 * np.broadcast_to(values, levels.shape)).astype(np.uint8)
    near(encoded, Image.fromarray(shown), 2)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14, 24])
@pytest.mark.parametrize("colours", [1, 2])
def test_tiffs_of_odd_bits(colours, bits, levels):
    values = levels if colours == 2 else levels[..., :1]
    whole = np.rint(values * (2**bits - 1)).astype(np.int64)
    rows = ["".join(f"{value:0{bits}b}" for value in row.flatten().tolist()) for row in whole]
    rows = [row + "0" * (-len(row) % 8) for row in rows]
    data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    encoded = tiff(base(bits, values.shape[2], colours, data), data, order=">")
    shown = np.rint(255 * whole / (2**bits - 1)).astype(np.uint8)
    near(encoded, Image.fromarray(np.broadcast_to(shown, levels.shape).copy()), 2)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_whose_colours_lie_in_planes(bits, levels):
    planes = samples(levels.transpose(2, 0, 1), bits, 1, "<")
    each = len(planes) // 3
    tags = base(bits, 3, 2, planes, _284=2)
    tags[279] = (each,) * 3
    start = len(tiff({**tags, 273: (0, 0, 0)}, b""))
    tags[273] = tuple(start + plane * each for plane in range(3))
    near(tiff(tags, planes), Image.fromarray(np.rint(255 * levels).astype(np.uint8)), 1)


# What is premultiplied in CMYK is not agreed on.
ALPHAS = [("CMYK", 2), *product(("grey", "RGB"), (1, 2))]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours, extra", ALPHAS)
def test_tiffs_with_alpha_are_laid_over_white(colours, bits, extra, levels):
    alpha = np.linspace(0, 1, W * H).reshape(H, W, 1)
    rgb = levels if colours != "grey" else np.repeat(levels[..., :1], 3, 2)
    shown = rgb * alpha + 1 - alpha
    own = {"grey": rgb[..., :1], "RGB": rgb, "CMYK": np.concatenate([1 - rgb, 0 * alpha], 2)}
    values = own[colours]
    if extra == 1:
        values = values * alpha
    data = samples(np.concatenate([values, alpha], 2), bits, 1, "<")
    photometric = {"grey": 1, "RGB": 2, "CMYK": 5}[colours]
    tags = base(bits, values.shape[2] + 1, photometric, data, _338=extra)
    near(tiff(tags, data), Image.fromarray(np.rint(255 * shown).astype(np.uint8)), 4)


@pytest.mark.parametrize("scale", [1, 257])
def test_a_tiffs_palette_may_have_levels_of_8_bits(scale, photo):
    image = photo.resize((W, H)).quantize(16)
    palette = np.asarray(image.getpalette()[:48] + [0] * 720).reshape(256, 3).T
    data = np.asarray(image).tobytes()
    tags = base(8, 1, 3, data) | {320: tuple((palette * scale).flatten().tolist())}
    near(tiff(tags, data), image)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_of_cmyk_may_have_16_bits(bits, levels):
    inks = np.concatenate([1 - levels, np.zeros((H, W, 1))], 2)
    data = samples(inks, bits, 1, "<")
    shown = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
    near(tiff(base(bits, 4, 5, data), data), shown, 2)


def test_a_tiffs_palette_may_have_more_than_256_entries(levels):
    grey = np.rint(levels[..., 0] * 65535).astype("<u2")
    tags = base(16, 1, 3, grey.tobytes()) | {320: tuple(range(65536)) * 3}
    shown = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    near(tiff(tags, grey.tobytes()), Image.fromarray(shown))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits, kind", [(8, 1), (16, 1), (16, 2)])
def test_odd_tiffs_are_turned_upright(orientation, bits, kind, levels):
    upright = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
    stored = np.asarray(STORED_AS[orientation](upright)) / 255
    # Big-endian BigTIFF is what sends even 8 bits past Pillow.
    order = ">" if bits == 8 else "<"
    data = samples(stored, bits, kind, order)
    tags = base(bits, 3, 2, data, _339=(kind,) * 3, _274=orientation)
    tags |= {256: stored.shape[1], 257: stored.shape[0], 278: stored.shape[0]}
    near(tiff(tags, data, 273, order, big=bits == 8), upright, 2)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_tiff_of_an_odd_kind_is_told(share, levels):
    data = samples(levels, 16, 2, "<")
    encoded = tiff(base(16, 3, 2, data, _339=(2,) * 3), data)
    assert "TIFF is truncated or damaged" in problem(encoded[: int(len(encoded) * share)])


def test_tiffs_that_are_not_read_are_named(levels):
    data = samples(levels, 16, 1, "<")
    assert "camera's raw file" in problem(tiff(base(16, 3, 32803, data), data))
    dark = np.full((H, W), 300, "<u4").tobytes()
    assert "no defined brightness range" in problem(tiff(base(32, 1, 1, dark), dark))


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
