"""Any image that people have becomes the pixels that RAM's reference would make, or a clear error.

The reference's recipe stands here once more, written independently: Pillow's `convert("RGB")`, and
a bilinear squash to a square.
"""

import base64
import random
import re
import struct
import warnings
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from experiments.image_files import STORED_AS, chunk, png, tiff
from PIL import Image, PngImagePlugin
from ram_triton.server_code import (
    ImageError,
    ImageLimits,
    image_limits,
    preprocess,
    preprocessing,
    structure,
)

SIZE = 32
LIMITS = image_limits()
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
ORIENTATION = 0x0112
RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)  # greys of 16 bits


def reference(image: Image.Image, size: int = SIZE) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def mean_difference(pixels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(pixels.astype(int) - expected.astype(int)).mean())


def largest_difference(pixels: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(pixels.astype(int) - expected.astype(int)).max())


def assert_near(pixels: np.ndarray, expected: np.ndarray) -> None:
    """The resizer rounds otherwise than Pillow's own: one level of 255 at most."""
    assert pixels.shape == expected.shape
    assert largest_difference(pixels, expected) <= 1


def over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba.convert("RGBA"))


def quote_all(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in data)


def problem(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        preprocess(data, SIZE, limits)
    message = str(caught.value)
    assert message and "\n" not in message and "0x" not in message
    return message


@pytest.fixture
def forms(photo, encode) -> dict[str, bytes]:
    """One small file of each kind that its name says."""
    small = photo.resize((48, 36))
    turned = small.rotate(180)
    see_through = small.copy()
    see_through.putalpha(small.convert("L"))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    several = {"save_all": True, "append_images": [turned]}
    return {
        "JPEG": encode(small, "JPEG", exif=exif),
        "JPEG progressive": encode(small, "JPEG", progressive=True),
        "JPEG grey": encode(small.convert("L"), "JPEG"),
        "MPO": encode(small, "MPO", **several),
        "PNG": encode(small, "PNG", exif=exif),
        "PNG palette": encode(small.quantize(16), "PNG", transparency=bytes(range(16))),
        "PNG 16-bit": encode(Image.fromarray(RAMP), "PNG"),
        "APNG": encode(small, "PNG", **several),
        "WEBP": encode(small, "WEBP", exif=exif),
        "WEBP lossless": encode(see_through, "WEBP", lossless=True),
        "WEBP animated": encode(small, "WEBP", **several),
        "GIF": encode(small, "GIF"),
        "GIF animated": encode(small, "GIF", **several),
        "BMP": encode(small, "BMP"),
        "BMP palette": encode(small.quantize(16), "BMP"),
        "TIFF": encode(small, "TIFF", exif=exif),
        "TIFF LZW": encode(small, "TIFF", compression="tiff_lzw"),
        "TIFF deflate": encode(small, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF JPEG": encode(small, "TIFF", compression="jpeg"),
        "TIFF fax": encode(small.convert("1"), "TIFF", compression="group4"),
        "TIFF 16-bit": encode(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    }


# Formats, sizes, colours


def test_every_format_gives_rgb_bytes_of_the_asked_size(photo, encode):
    for name in FORMATS:
        pixels = preprocess(encode(photo, name), 56)
        assert (pixels.shape, pixels.dtype) == ((56, 56, 3), np.uint8), name
        assert mean_difference(pixels, reference(photo, 56)) < 5, name


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("size", [1, 32, 224])
def test_lossless_formats_give_exactly_the_pixels_of_the_reference(name, size, photo, encode):
    pixels = preprocess(encode(photo, name, **LOSSLESS[name]), size)
    assert_near(pixels, reference(photo, size))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "GIF"])
def test_grey_one_bit_and_palette_images_are_exactly_the_reference(name, mode, photo, encode):
    image = photo.quantize(64) if mode == "P" else photo.convert(mode)
    assert_near(preprocess(encode(image, name), SIZE), reference(image))


@pytest.mark.parametrize("extent", [(1, 1), (1, 500), (500, 1), (2, 20_000), (20_000, 3)])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF"])
def test_images_of_one_pixel_and_of_extreme_shapes_are_squashed_too(name, extent, photo, encode):
    encoded = encode(photo.resize(extent), name)
    assert_near(preprocess(encoded, SIZE), reference(Image.open(BytesIO(encoded))))


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_is_converted_as_the_reference_does(name, photo, encode):
    encoded = encode(photo.convert("CMYK"), name)
    assert mean_difference(preprocess(encoded, SIZE), reference(photo)) < 3


def test_a_small_jpeg_is_exactly_the_reference_and_progressive_ones_are_no_exception(photo, encode):
    for progressive in (False, True):
        encoded = encode(photo, "JPEG", progressive=progressive)
        decoded = Image.open(BytesIO(encoded))
        assert_near(preprocess(encoded, 120), reference(decoded, 120))


def test_an_mpo_gives_its_first_picture(photo, encode):
    encoded = encode(photo, "MPO", save_all=True, append_images=[photo.rotate(180)])
    assert Image.open(BytesIO(encoded)).format == "MPO"
    assert mean_difference(preprocess(encoded, SIZE), reference(photo)) < 2


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(name, photo, encode):
    first, second = photo.quantize(64).convert("RGB"), photo.rotate(180)
    options = {"lossless": True} if name == "WEBP" else {}
    encoded = encode(first, name, save_all=True, append_images=[second], duration=50, **options)
    assert Image.open(BytesIO(encoded)).n_frames == 2
    assert_near(preprocess(encoded, SIZE), reference(first))


# 16 bits


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_greys_are_scaled_and_not_clipped(name, order, encode):
    encoded = encode(Image.fromarray(RAMP.astype(order)), name)
    expected = Image.fromarray(np.round(RAMP / 257).astype(np.uint8))
    assert_near(preprocess(encoded, SIZE), reference(expected))


def test_16_bit_white_is_zero_tiffs_are_not_negatives(encode):
    encoded = encode(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    expected = Image.fromarray(255 - np.round(RAMP / 257).astype(np.uint8))
    assert_near(preprocess(encoded, SIZE), reference(expected))


def test_12_bit_tiffs_are_not_sixteen_times_too_dark():
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 277: 1, 279: 6}
    pixels = preprocess(tiff(tags, bytes.fromhex("FFFFFF" * 2)), SIZE)
    assert (pixels == 255).all()


def test_16_bit_rgb_and_grey_with_alpha_pngs_keep_their_brightness():
    rgb = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
    encoded = png(16, 2, 64, [row.astype(">u2").tobytes() for row in rgb])
    pixels = preprocess(encoded, SIZE)
    assert_near(pixels, reference(Image.fromarray((rgb >> 8).astype(np.uint8))))
    opaque = np.stack([RAMP, np.full_like(RAMP, 0xFFFF)], -1)
    encoded = png(16, 4, 64, [row.astype(">u2").tobytes() for row in opaque])
    expected = Image.fromarray((RAMP >> 8).astype(np.uint8))
    assert_near(preprocess(encoded, SIZE), reference(expected))


@pytest.mark.parametrize("value", [np.int32(1), np.float32(1e5), np.int32(2**20)])
def test_tiffs_of_32_bits_are_refused_if_no_one_knows_what_white_is(value, encode):
    encoded = encode(Image.fromarray(np.full((8, 8), value)), "TIFF")
    assert "32-bit pixels have no defined brightness range" in problem(encoded)


def test_lab_tiffs_are_converted_as_the_reference_does(encode):
    image = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (120, 30, 90)])
    assert_near(preprocess(encode(image, "TIFF"), SIZE), reference(image))


# Transparency


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(name, mode, photo, encode):
    image = photo.convert(mode)
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 160), (120, 1)).astype(np.uint8)))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    pixels = preprocess(encode(image, name, **options), SIZE)
    assert largest_difference(pixels, reference(over_white(image))) <= 2


def test_what_is_fully_transparent_is_white_whatever_colour_it_hides(encode):
    for colour in ((0, 0, 0, 0), (255, 0, 0, 0)):
        assert (preprocess(encode(Image.new("RGBA", (9, 9), colour)), SIZE) == 255).all()


def test_palette_entries_may_be_partly_transparent(photo, encode):
    image = photo.quantize(16)
    encoded = encode(image, "PNG", transparency=bytes(range(0, 256, 16)))
    decoded = Image.open(BytesIO(encoded))
    assert decoded.mode == "P"
    pixels = preprocess(encoded, SIZE)
    assert largest_difference(pixels, reference(over_white(decoded))) <= 2
    assert mean_difference(pixels, reference(image)) > 20


def test_one_transparent_palette_entry_of_a_gif_is_white(encode):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (preprocess(encode(image, "GIF", transparency=1), SIZE) == 255).all()
    assert (preprocess(encode(image, "GIF", transparency=0), SIZE) == (10, 20, 30)).all()


def test_one_transparent_colour_of_an_rgb_or_grey_png_is_white(encode):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert (preprocess(encode(red, transparency=(255, 0, 0)), SIZE) == 255).all()
    assert (preprocess(encode(red, transparency=(254, 0, 0)), SIZE) == (255, 0, 0)).all()
    assert (preprocess(encode(Image.new("L", (8, 8), 7), transparency=7), SIZE) == 255).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white_at_every_bit_depth(bits):
    dark = struct.pack(">H", 0)
    one = (1).to_bytes(2, "big") if bits == 16 else bytes([sum(1 << i for i in range(0, 8, bits))])
    rows = [one * 8 for _ in range(8)]
    grey_of_one = {1: 255, 2: 85, 4: 17, 8: 1, 16: 0}[bits]
    width = 8 * len(one) * 8 // bits
    transparent = png(bits, 0, width, rows, chunk(b"tRNS", struct.pack(">H", 1)))
    assert (preprocess(transparent, SIZE) == 255).all()
    another = png(bits, 0, width, rows, chunk(b"tRNS", dark))
    assert (preprocess(another, SIZE) == grey_of_one).all()


def test_a_transparent_colour_of_a_16_bit_rgb_png_is_white():
    pixel = struct.pack(">HHH", 1000, 2000, 3000)
    assert (preprocess(png(16, 2, 8, [pixel * 8] * 8, chunk(b"tRNS", pixel)), SIZE) == 255).all()
    other = struct.pack(">HHH", 1000, 2000, 9000)
    pixels = preprocess(png(16, 2, 8, [pixel * 8] * 8, chunk(b"tRNS", other)), SIZE)
    assert (pixels == (1000 >> 8, 2000 >> 8, 3000 >> 8)).all()


# Orientation


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(name, orientation, photo, encode):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    encoded = encode(
        STORED_AS[orientation](photo), name, exif=exif, **LOSSLESS.get(name, {"quality": 95})
    )
    pixels = preprocess(encoded, SIZE)
    # Turned after the squash and not before it: the roundings fall otherwise, by one level.
    if name == "JPEG":
        assert mean_difference(pixels, reference(photo)) < 1.5
    else:
        assert largest_difference(pixels, reference(photo)) <= 2


def test_compressed_tiffs_are_turned_once_too(photo, encode):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        encoded = encode(STORED_AS[6](photo), "TIFF", exif=exif, compression=compression)
        assert_near(preprocess(encoded, SIZE), reference(photo))


def test_orientation_and_transparency_come_together(photo, encode):
    image = photo.convert("RGBA")
    image.putalpha(photo.convert("L"))
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    pixels = preprocess(encode(STORED_AS[8](image), "PNG", exif=exif), SIZE)
    assert largest_difference(pixels, reference(over_white(image))) <= 2


def test_orientation_and_reduced_decoding_come_together(photo, encode):
    large = photo.resize((1600, 1200), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    encoded = encode(STORED_AS[6](large), "JPEG", exif=exif, quality=95)
    assert mean_difference(preprocess(encoded, SIZE), reference(large)) < 1


@pytest.mark.parametrize(
    "kind, value",
    [
        (3, struct.pack("<I", 0)),
        (3, struct.pack("<I", 9)),
        (3, struct.pack("<I", 65535)),
        (4, struct.pack("<I", 2**32 - 1)),
        (2, b"up\0\0"),
        (7, b"\6\0\0\0"),
        (5, struct.pack("<I", 26)),  # a fraction that lies past the end
        (11, struct.pack("<f", float("nan"))),
        (99, b"\6\0\0\0"),
    ],
)
def test_orientations_that_do_not_exist_mean_upright(kind, value, photo, encode):
    entry = struct.pack("<HHI", ORIENTATION, kind, 1) + value
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    assert_near(preprocess(encode(photo, exif=exif), SIZE), reference(photo))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 60,
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 40,
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\xff\xff\xff\xff\0\6\0\0",
        b"not EXIF at all",
    ],
)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_no_reason_to_refuse_an_image(name, exif, photo, encode):
    encoded = encode(photo, name, exif=exif)
    assert mean_difference(preprocess(encoded, SIZE), reference(photo)) < 3


def test_a_pngs_text_that_claims_to_be_exif_and_is_not_is_ignored(photo, encode):
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "exif\n 4\nno hexadecimal")
    encoded = encode(photo, "PNG", pnginfo=text)
    assert_near(preprocess(encoded, SIZE), reference(photo))


# Reduced decoding


@pytest.mark.parametrize("extent", [(1600, 1200), (1601, 1207), (1213, 3001), (800, 600)])
def test_reduced_decoding_stays_within_one_level_on_average(extent, photo, encode):
    large = photo.resize(extent, Image.Resampling.BICUBIC)
    encoded = encode(large, "JPEG", quality=90)
    full = reference(Image.open(BytesIO(encoded)))
    pixels = preprocess(encoded, SIZE)
    assert mean_difference(pixels, full) < 1
    assert largest_difference(pixels, full) <= 4
    assert (pixels != full).any()  # it was reduced


# Limits


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
    bomb = encoded[:-2] + scan * structure.MAX_SCANS + encoded[-2:]
    assert problem(bomb) == f"the JPEG has more than {structure.MAX_SCANS} scans"


def test_an_image_within_the_limits_is_decoded_without_pillows_own_limit(encode):
    # Pillow alone warns above 89 megapixels, and refuses twice as many.
    encoded = encode(Image.new("1", (12_000, 8_000), 1), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (preprocess(encoded, SIZE, LIMITS) == 255).all()


# Errors
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_image_is_an_error_that_names_its_format(name, photo, encode):
    encoded = encode(photo, name)
    for share in (0.01, 0.3, 0.6, 0.9):
        message = problem(encoded[: max(16, int(len(encoded) * share))])
        assert name in message and "truncated or damaged" in message


def test_other_formats_are_refused_though_pillow_reads_them(photo, encode):
    names = {"PPM": "PNM", "ICO": "ICO", "EPS": "PostScript", "JPEG2000": "JPEG 2000"}
    for name, shown in names.items():
        assert problem(encode(photo, name)).startswith(f"this is {shown}; send JPEG, PNG, ")
    for name in ("TGA", "PCX"):
        assert "known format" in problem(encode(photo, name))


def test_more_memory_than_there_is_is_an_error(photo, encode, monkeypatch):
    def raise_memory_error(*_):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.new", raise_memory_error)
    assert "memory" in problem(encode(photo))


# Batches


def test_a_batch_is_its_images_one_by_one(photo, encode):
    images = [encode(photo), encode(photo.rotate(180), "JPEG"), base64.b64encode(encode(photo))]
    pixels = preprocessing.preprocess_batch(images, SIZE, LIMITS)
    assert (pixels.shape, pixels.dtype) == ((3, SIZE, SIZE, 3), np.uint8)
    for index, data in enumerate(images):
        np.testing.assert_array_equal(pixels[index], preprocess(data, SIZE))


def test_an_error_in_a_batch_names_the_image(photo, encode):
    with pytest.raises(ImageError, match=r"^image\[2\]: empty$"):
        preprocessing.preprocess_batch([encode(photo), encode(photo), b""], SIZE, LIMITS)
    with pytest.raises(ImageError, match=r"^image: empty$"):
        preprocessing.preprocess_batch([b""], SIZE, LIMITS)


# Whatever comes


def test_every_kind_of_file_that_is_fuzzed_can_be_decoded(forms):
    for name, encoded in forms.items():
        assert preprocess(encoded, SIZE).shape == (SIZE, SIZE, 3), name


def test_a_file_cut_anywhere_is_pixels_or_an_error(forms, capfd):
    generator = random.Random(0)
    for name, encoded in forms.items():
        for cut in generator.sample(range(len(encoded)), 150):
            check_pixels_or_error(name, encoded[:cut])
    check_nothing_printed(capfd)


def test_a_file_with_changed_bytes_is_pixels_or_an_error(forms, capfd):
    generator = random.Random(0)
    for name, encoded in forms.items():
        for _ in range(300):
            data = bytearray(encoded)
            for _ in range(generator.choice((1, 1, 2, 8))):
                # Headers steer decoders most, and they stand at the beginning (in TIFF, the end).
                reach = min(len(data), generator.choice((30, 200, len(data))))
                place = generator.randrange(reach) * generator.choice((1, 1, -1))
                data[place] = generator.randrange(256)
            check_pixels_or_error(name, bytes(data))
    check_nothing_printed(capfd)


def check_pixels_or_error(name: str, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning that got out would be printed
        try:
            pixels = preprocess(data, SIZE, replace(LIMITS, max_pixels=2**22))
        except ImageError as error:
            message = str(error)
            assert 0 < len(message) < 300, (name, message)
            assert message.isprintable() and not re.search("0x[0-9a-f]{6}", message), message
        else:
            assert pixels.shape == (SIZE, SIZE, 3), name


def check_nothing_printed(capfd) -> None:
    """Nothing on stdout; on stderr only what libtiff, in C, says of a damaged TIFF."""
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err and ".py" not in printed.err
