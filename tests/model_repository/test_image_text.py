"""What clients send instead of an image's bytes: base64 in its many forms, or something else."""

import base64
import gzip
import random
import struct
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import pytest
from ram_triton.server_code import ImageError, encoded_image, image_limits, preprocess, unwrap

SIZE = 32
LIMITS = image_limits()
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
KNOWN = ", ".join(encoded_image.FORMATS)


def quote_all(data: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in data)


def problem(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        preprocess(data, SIZE)
    message = str(caught.value)
    assert message and "\n" not in message and "0x" not in message
    return message


@pytest.mark.parametrize(
    "form",
    [
        base64.b64encode,
        base64.urlsafe_b64encode,
        base64.encodebytes,
        lambda data: base64.encodebytes(data).replace(b"\n", b"\r\n"),
        lambda data: base64.b64encode(data).rstrip(b"="),
        lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
        lambda data: b"\n  " + base64.b64encode(data) + b"\n",
        lambda data: b"data:image/png;base64," + base64.b64encode(data),
        lambda data: b"data:image/png;base64," + base64.urlsafe_b64encode(data),
        lambda data: b"data:image/png;base64," + base64.encodebytes(data),
        lambda data: b"DATA:IMAGE/PNG;BASE64," + base64.b64encode(data),
        lambda data: b"data:;base64," + base64.b64encode(data),
        lambda data: b"data:image/png;name=a.png;charset=utf-8;base64," + base64.b64encode(data),
        lambda data: b"data:image/png; base64," + base64.b64encode(data),
        lambda data: b"data:image/png;base64," + quote_from_bytes(base64.b64encode(data)).encode(),
        lambda data: b"data:image/png," + quote_from_bytes(data).encode(),
        lambda data: b"data:image/png;base64=no," + quote_from_bytes(data).encode(),
        lambda data: b"data:," + quote_all(data),
        lambda data: b"\ndata:," + quote_all(data).lower() + b"\n",
    ],
)
def test_base64_text_and_data_urls_are_the_image_that_they_hold(form, photo, encode):
    for extent in ((9, 7), (10, 7), (11, 7), (160, 120)):  # lengths that pad differently
        encoded = encode(photo.resize(extent), "PNG")
        expected = preprocess(encoded, SIZE)
        np.testing.assert_array_equal(preprocess(form(encoded), SIZE), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_may_come_as_base64_text(name, photo, encode):
    encoded = encode(photo, name)
    pixels = preprocess(base64.b64encode(encoded), SIZE)
    np.testing.assert_array_equal(pixels, preprocess(encoded, SIZE))


def test_percent_decoding_is_urllibs():
    generator = random.Random(0)
    for _ in range(200):
        data = generator.randbytes(60).replace(b"%", b"%25")
        text = data + quote_all(generator.randbytes(9)) + b"=\r\n=20 %3d%3D x"
        assert unwrap(b"data:," + text, LIMITS) == unquote_to_bytes(text)


@pytest.mark.parametrize(
    "form",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: b'"' + text + b'"',
        lambda text: b"'" + text + b"'\n",
        lambda text: repr(text).encode(),
        lambda text: b'"data:image/png;base64,' + text + b'"',
        lambda text: b"image/png;base64," + text,
        lambda text: b"image/svg+xml;charset=utf-8;base64," + text,
        lambda text: b"base64," + text,
        lambda text: text.replace(b"+", b" "),
        lambda text: b"data:image/png;base64," + text.replace(b"+", b" "),
        lambda text: b" ".join(text[place : place + 76] for place in range(0, len(text), 76)),
        base64.b64encode,
        lambda text: base64.b64encode(b"data:image/png;base64," + text),
        lambda text: base64.b64encode(repr(text).encode()),
        lambda text: b"data:image/png;base64," + base64.b64encode(text),
    ],
)
def test_what_wraps_base64_by_mistake_is_taken_off(form, photo, encode):
    for side in range(20, 32):
        encoded = encode(photo.resize((side, side)), "PNG")
        text = base64.b64encode(encoded)
        np.testing.assert_array_equal(preprocess(form(text), SIZE), preprocess(encoded, SIZE))


# Errors


@pytest.mark.parametrize("data", [b"", b"   \n", b"data:image/png;base64,", b"data:,"])
def test_nothing_is_an_error_that_says_so(data):
    assert problem(data) == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"null",
        bytes(1000),
        "日本語".encode(),
        b"\xff",
        base64.b64encode(b"no image"),
        b"data:image/png;base64,!!!!",
        b"data:image/png;base64,AAAA=AAA",
        b"data:text/plain,hello",
        b"data:image/png,%ZZ%",
    ],
)
def test_what_is_no_image_is_an_error_that_names_the_formats(data):
    message = problem(data)
    assert message == f"not an image of a known format ({KNOWN}), as bytes or base64 text"


def test_noise_is_an_error():
    generator = random.Random(0)
    for length in range(1, 200):
        problem(bytes([0]) + generator.randbytes(length))


def test_a_data_url_without_data_is_an_error_that_says_so():
    assert problem(b"data:image/png;base64") == "a data: URL without a comma before its data"


@pytest.mark.parametrize(
    "data, name",
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b'<?xml version="1.0"?>\n<!-- a -->\n<svg width="1"/>', "SVG"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "MP4 video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "QuickTime video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x29", "JPEG 2000"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"8BPS\0\1", "PSD"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"PK\3\4", "ZIP"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI video"),
        (b"qoif\0\0\0\1", "QOI"),
        (b"P6\n1 1\n255\n...", "PNM"),
        (struct.pack("<IiiHH", 40, 64, 48, 1, 24), "DIB, a BMP without its file header"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_what_is_not_read_is_named(data, name):
    expected = f"this is {name}; send {KNOWN}"
    assert problem(data) == problem(base64.b64encode(data)) == expected
    assert problem(b"data:application/octet-stream;base64," + base64.b64encode(data)) == expected


@pytest.mark.parametrize(
    "data, message",
    [
        (b"https://example.com/photo.jpg", "this is an address, and addresses are not fetched"),
        (b'"http://localhost/photo?width=3"', "this is an address, and addresses are not fetched"),
        (b"s3://bucket/photo.png", "this is an address, and addresses are not fetched"),
        (b"photo.jpg", "this is a path, and files of the server are not read"),
        (b"/home/me/My pictures/a", "this is a path, and files of the server are not read"),
        (b"C:\\pictures\\a.png", "this is a path, and files of the server are not read"),
        (b"/data/images", "this is a path, and files of the server are not read"),
        (b"b'\\xff\\xd8\\xff'", "this is Python's text of bytes"),
        (b'{"image": "iVBORw0KGgo="}', "this is JSON; send the image alone"),
        (b"[255, 216]", "this is JSON; send the image alone"),
    ],
)
def test_texts_that_are_not_images_are_named(data, message):
    assert problem(data).startswith(message)
