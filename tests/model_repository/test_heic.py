"""HEIC, which the server reads where a package that decodes it is installed."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from ram_triton.server_code import ImageError, decoder, encoded_image, image_limits, preprocess
from support.heic import HEIC, TURNED_HEIC

pi_heif = pytest.importorskip("pi_heif")
SIZE = 32


def decoded(encoded: bytes) -> Image.Image:
    """The picture as libheif gives it, upright."""
    return pi_heif.open_heif(BytesIO(encoded), convert_hdr_to_8bit=True).to_pillow().convert("RGB")


@pytest.mark.parametrize("encoded", [HEIC, TURNED_HEIC], ids=["upright", "turned"])
def test_it_is_read_upright(encoded):
    upright = decoded(encoded)
    expected = np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(int)
    assert abs(preprocess(encoded, SIZE) - expected).max() <= 1
    assert abs(preprocess(base64.b64encode(encoded), SIZE) - expected).max() <= 1


def test_a_turn_is_applied_once():
    pixels = preprocess(TURNED_HEIC, SIZE).astype(int)
    red, green = pixels[..., 0], pixels[..., 1]
    assert decoded(TURNED_HEIC).size == (48, 64)
    across, down = (np.ptp(red.mean(axis=axis)) for axis in (0, 1))
    assert across > 10 * down, "stored from top to bottom, shown from right to left"
    across, down = (np.ptp(green.mean(axis=axis)) for axis in (0, 1))
    assert down > 10 * across


def test_the_process_beside_the_model_reads_it():
    decoding = decoder.Decoder(SIZE, image_limits())
    try:
        np.testing.assert_array_equal(decoding.preprocess(HEIC), preprocess(HEIC, SIZE))
        for end in range(20, len(HEIC), 31):
            with pytest.raises(ImageError, match=r"HEIF.* is truncated or damaged"):
                decoding.preprocess(HEIC[:end])
    finally:
        decoding.close()


def test_its_size_is_limited_before_it_is_decoded():
    limits = encoded_image.ImageLimits(max_bytes=2**20, max_pixels=63 * 64)
    with pytest.raises(ImageError, match="64 x 64"):
        preprocess(HEIC, SIZE, limits)


@pytest.mark.parametrize(
    "data", [HEIC, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix"]
)
def test_where_nothing_decodes_it_it_is_named(data, monkeypatch):
    monkeypatch.setattr(encoded_image, "HEIC_PACKAGE", None)
    monkeypatch.setattr(encoded_image, "FORMATS", ("JPEG", "PNG"))
    for sent in (data, base64.b64encode(data)):
        with pytest.raises(ImageError, match=r"^this is HEIC; send JPEG, PNG"):
            preprocess(sent, SIZE)
