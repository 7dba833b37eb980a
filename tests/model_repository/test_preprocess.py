"""Any image that people have becomes the pixels that RAM's reference would make."""

import base64
import struct
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from experiments.image_files import chunk, png, tiff
from PIL import Image
from ram_triton.server_code import ImageError, preprocess, preprocessing
from support.pixels import (
    FORMATS,
    LOSSLESS,
    RAMP,
    SIZE,
    assert_near,
    largest_difference,
    mean_difference,
    over_white,
    problem,
    reference,
)

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


# Batches


preprocess_one = partial(preprocess, image_size=SIZE)


def test_a_batch_is_its_images_one_by_one(photo, encode):
    images = [encode(photo), encode(photo.rotate(180), "JPEG"), base64.b64encode(encode(photo))]
    pixels = preprocessing.preprocess_batch(images, SIZE, preprocess_one)
    assert (pixels.shape, pixels.dtype) == ((3, SIZE, SIZE, 3), np.uint8)
    for index, data in enumerate(images):
        np.testing.assert_array_equal(pixels[index], preprocess(data, SIZE))


def test_an_error_in_a_batch_names_the_image(photo, encode):
    with pytest.raises(ImageError, match=r"^image\[2\]: empty$"):
        preprocessing.preprocess_batch([encode(photo), encode(photo), b""], SIZE, preprocess_one)
    with pytest.raises(ImageError, match=r"^image: empty$"):
        preprocessing.preprocess_batch([b""], SIZE, preprocess_one)
