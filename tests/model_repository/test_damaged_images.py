"""Of damaged files come pixels or an error in one line, and nothing else."""

import random
import re
import warnings
from dataclasses import replace

import pytest
from PIL import Image
from ram_triton.server_code import ImageError, preprocess
from support.pixels import FORMATS, LIMITS, ORIENTATION, RAMP, SIZE, problem


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
