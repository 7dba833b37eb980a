"""Image files in training and evaluation: they look as they will on the server."""

import numpy as np
import pytest
from PIL import Image
from ram_triton.server_code import preprocess
from ram_triton.training.data import Images

SIZE = 32
SHADE = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def turned_jpeg(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.stack([255 * SHADE] * 3, 2).astype(np.uint8)).save(
        path / "turned.jpg", exif=exif
    )
    return path / "turned.jpg"


def wide_png(path):
    Image.fromarray((65535 * SHADE).astype(np.uint16)).save(path / "wide.png")
    return path / "wide.png"


def clear_png(path):
    pixels = np.stack([255 * SHADE, 255 * SHADE, 0 * SHADE, 255 * SHADE.round()], 2)
    Image.fromarray(pixels.astype(np.uint8), "RGBA").save(path / "clear.png")
    return path / "clear.png"


def turned_clear_png(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(clear_png(path)) as image:
        image.save(path / "turned.png", exif=exif)
    return path / "turned.png"


@pytest.mark.parametrize("make", [turned_jpeg, wide_png, clear_png, turned_clear_png])
def test_evaluation_shows_the_model_the_servers_pixels(tmp_path, make):
    path = make(tmp_path)
    (shown,) = Images(None, SIZE).load_flat([path]).numpy()
    np.testing.assert_array_equal(shown, preprocess(path.read_bytes(), SIZE))


@pytest.mark.parametrize("make", [turned_jpeg, wide_png, clear_png, turned_clear_png])
def test_training_pastes_the_servers_pixels_with_their_transparency(tmp_path, make):
    path = make(tmp_path)
    (layer,) = Images(None, SIZE).load([path]).numpy()
    alpha = layer[..., 3:] / 255.0
    on_white = layer[..., :3] * alpha + 255 * (1 - alpha)
    # Laid over white before or after it is made smaller: the roundings differ.
    np.testing.assert_allclose(on_white, preprocess(path.read_bytes(), SIZE), atol=2)
    assert (alpha.min() < 0.1) == (make in (clear_png, turned_clear_png))
