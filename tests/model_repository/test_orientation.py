"""Pictures are turned upright, whatever their metadata are like."""

import struct

import pytest
from experiments.image_files import STORED_AS
from PIL import Image, PngImagePlugin
from ram_triton.server_code import preprocess
from support.pixels import (
    LOSSLESS,
    ORIENTATION,
    SIZE,
    assert_near,
    largest_difference,
    mean_difference,
    over_white,
    reference,
)


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
