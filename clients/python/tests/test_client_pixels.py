"""Arrays, tensors and Pillow images: what is sent of them is what the server would make of them."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from ram_client import ImageUnreadable
from ram_client.image import contents, encode
from ram_client.pixels import can_be_squashed, squash
from ram_triton.server_code import preprocess

CLIENT = Path(__file__).parents[1]
SERVERS = CLIENT.parents[1] / "model_repository/ram_preprocess/1/resize.py"
SIZE = 96
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def picture():
    """A photo's size, noise on a gradient: what a filter makes of it depends on each pixel."""
    noise = np.random.default_rng(0).integers(0, 60, (240, 320, 3))
    ramp = np.linspace(0, 190, 320)[None, :, None] * np.array([1, 0.5, 0.2])
    return (noise + ramp).astype(np.uint8)


def of_server(image):
    """What the server makes of the picture if it is sent encoded, as PNG."""
    return preprocess(encode(image), SIZE)


def test_an_array_is_squashed_as_the_server_squashes_it(picture):
    square = squash(picture, SIZE)
    assert (square.shape, square.dtype) == ((SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(square, of_server(picture))


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[::-1],
        lambda array: array[:, ::2],
        lambda array: np.asfortranarray(array),
        lambda array: array[:1, :1],
        lambda array: array[:1],
        lambda array: array[:SIZE, :SIZE],
        lambda array: np.broadcast_to(array[:, :1], array.shape),  # read-only, strides of 0
    ],
)
def test_any_memory_will_do(picture, change):
    array = change(picture)
    np.testing.assert_array_equal(squash(array, SIZE), of_server(array))


def test_blue_green_red_is_put_in_order(picture):
    bgr = picture[..., ::-1]
    np.testing.assert_array_equal(squash(bgr, SIZE, bgr=True), squash(picture, SIZE))
    assert encode(bgr, bgr=True) == encode(picture)
    image = PIL.Image.fromarray(picture)
    np.testing.assert_array_equal(squash(image, SIZE, bgr=True), squash(picture, SIZE))


def test_tensors_are_taken_without_their_library(picture):
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(squash(torch.from_numpy(picture), SIZE), squash(picture, SIZE))
    with pytest.raises(ImageUnreadable, match="channels first"):
        squash(torch.from_numpy(picture).permute(2, 0, 1), SIZE)
    with pytest.raises(ImageUnreadable, match=r"^image: .*meta"):
        squash(torch.zeros((4, 4, 3), dtype=torch.uint8, device="meta"), SIZE)


def test_what_exports_only_dlpack_is_taken(picture):
    class Exports:
        def __dlpack__(self, **options):
            return picture.__dlpack__(**options)

        def __dlpack_device__(self):
            return picture.__dlpack_device__()

    np.testing.assert_array_equal(squash(Exports(), SIZE), squash(picture, SIZE))
    assert encode(Exports()) == encode(picture)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((4, 5, 3)), "pixels are uint8, 0 to 255, and not float64; (255"),
        (np.zeros((4, 5, 3), np.float16), "not float16"),
        (np.zeros((4, 5, 3), np.uint16), "not uint16"),
        (np.zeros((4, 5, 3), np.int8), "not int8"),
        (np.zeros((4, 5, 3), bool), "not bool"),
        (np.full((4, 5, 3), None), "not object"),
        (np.zeros((4, 5), np.uint8), "4 x 5 is grey"),
        (np.zeros((4, 5, 1), np.uint8), "4 x 5 x 1 is grey"),
        (np.zeros((3, 4, 5), np.uint8), "3 x 4 x 5 looks like channels first"),
        (np.zeros((1, 64, 64), np.uint8), "channels first"),
        (np.zeros((3, 400, 400)), "channels first"),
        (np.zeros((4, 5, 4), np.uint8), "four channels"),
        (np.zeros((4, 5, 2), np.uint8), "2 channels"),
        (np.zeros((64, 64, 8), np.uint8), "8 channels"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((2, 4, 5, 3), np.uint8), "is a batch"),
        (np.zeros(4, np.uint8), "1 dimensions"),
        (np.uint8(4), "0 dimensions"),
    ],
    ids=lambda value: getattr(value, "shape", None) and f"{value.dtype}{value.shape}",
)
def test_what_is_no_picture_is_refused_in_a_line(array, complaint):
    for send in (lambda: squash(array, SIZE), lambda: encode(array)):
        with pytest.raises(ImageUnreadable, match=rf"^image: .*{re.escape(complaint)}") as refused:
            send()
        assert "\n" not in str(refused.value)
    with pytest.raises(ImageUnreadable, match=r"^image\[1\]: "):
        contents([np.zeros((4, 5, 3), np.uint8), array], SIZE, bgr=False)


def converted(picture, mode):
    image = PIL.Image.fromarray(picture)
    if mode == "RGBa":
        return image.convert("RGBA").convert(mode)
    return (
        image.convert("L").convert(mode)
        if mode in ("LA", "I", "F", "I;16")
        else (image.convert(mode))
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "HSV", "YCbCr"])
def test_plain_pillow_images_are_squashed_as_the_server_would_their_png(picture, mode):
    image = converted(picture, mode)
    assert can_be_squashed(image)
    np.testing.assert_array_equal(squash(image, SIZE), of_server(image))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGBa", "I;16", "I"])
def test_transparency_and_deep_greys_are_left_to_the_server(picture, mode):
    assert not can_be_squashed(converted(picture, mode))


def test_a_transparent_colour_is_left_to_the_server(picture):
    image = converted(picture, "P")
    image.info["transparency"] = 3
    assert not can_be_squashed(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(picture, orientation, tmp_path):
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    PIL.Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as image:
        square = squash(image, SIZE)
        assert image.getexif()[ORIENTATION] == orientation, "the caller's image was changed"
    np.testing.assert_array_equal(square, preprocess((tmp_path / "a.png").read_bytes(), SIZE))


def test_a_truncated_photo_is_unreadable(picture, tmp_path):
    PIL.Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with (
        PIL.Image.open(tmp_path / "a.png") as image,
        pytest.raises(ImageUnreadable, match=r"^image: cannot be decoded: "),
    ):
        squash(image, SIZE)


def test_without_the_resizer_pillow_gives_nearly_the_same(picture, monkeypatch):
    from ram_client import resize

    fast = squash(picture, SIZE)
    monkeypatch.setattr(resize, "RESIZER", None)
    difference = np.abs(squash(picture, SIZE).astype(int) - fast)
    assert 0 < difference.max() <= 1


def test_the_code_of_the_squash_is_the_servers():
    assert (CLIENT / "ram_client" / "resize.py").read_bytes() == SERVERS.read_bytes()
    assert (CLIENT / "ram_client" / "resize.py").is_symlink()


def test_packages_contain_the_code_of_the_squash(tmp_path):
    """The file, and not a link that leads nowhere; of the wheel that is made of the sdist, too."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path)]
    subprocess.run([*build], cwd=CLIENT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    subprocess.run([*build[:-1], str(tmp_path / "2"), "-t", "wheel"], cwd=source, check=True)
    for wheel in (*tmp_path.glob("*.whl"), *tmp_path.glob("2/*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            assert archive.read("ram_client/resize.py") == SERVERS.read_bytes()
    assert len(list(tmp_path.glob("**/*.whl"))) == 2
