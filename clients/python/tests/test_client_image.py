import io

import numpy as np
import PIL.Image
import pytest
from ram_client import ImageUnreadable
from ram_client.image import encode

ORIENTATION = 0x0112


def decoded(data):
    return PIL.Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are(kind):
    assert encode(kind(b"data:,x")) == b"data:,x"


def test_files_are_sent_as_they_are(tmp_path):
    path = tmp_path / "no image.bin"
    path.write_bytes(b"anything")
    assert encode(path) == encode(str(path)) == b"anything"


def test_a_picture_becomes_a_lossless_png(pictures):
    image = decoded(encode(pictures[0]))
    assert image.format == "PNG"
    assert (np.asarray(image) == np.asarray(pictures[0])).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_png_are_kept(mode):
    assert decoded(encode(PIL.Image.new(mode, (3, 2)))).mode == mode


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "La", "PA", "RGBX", "RGBa", "YCbCr"])
def test_other_modes_look_the_same_as_png(mode):
    picture = PIL.Image.new("RGBA" if mode == "RGBa" else "RGB", (3, 2), "orange")
    if mode in ("La", "PA"):
        picture = picture.convert("LA")
    picture = picture.convert(mode)
    target = "LA" if mode == "La" else "RGBA" if mode in ("PA", "RGBa") else "RGB"
    image = decoded(encode(picture))
    assert image.mode == target
    assert (np.asarray(image) == np.asarray(picture.convert(target))).all()


def test_16_bit_greys_in_32_bit_pixels_are_kept():
    values = np.array([[0, 255, 65535]], np.int32)
    assert (np.asarray(decoded(encode(PIL.Image.fromarray(values)))) == values).all()


@pytest.mark.parametrize(
    "picture",
    [
        PIL.Image.new("F", (2, 2)),
        PIL.Image.new("LAB", (2, 2)),
        PIL.Image.new("I", (2, 2), 70000),
        PIL.Image.new("I", (2, 2), -1),
        PIL.Image.new("RGB", (0, 0)),
    ],
    ids=["float", "LAB", "too bright", "negative", "no pixels"],
)
def test_pictures_without_an_agreed_range_are_refused(picture):
    with pytest.raises(ImageUnreadable, match=r"^image: cannot be encoded as PNG: "):
        encode(picture)


def test_a_photo_keeps_its_orientation(pictures):
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    pictures[0].save(buffer, format="JPEG", exif=exif)
    assert decoded(encode(decoded(buffer.getvalue()))).getexif()[ORIENTATION] == 6


def test_a_truncated_picture_is_unreadable(photos):
    with pytest.raises(ImageUnreadable, match="truncated"):
        encode(decoded(photos[1][:-200]))


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(ImageUnreadable, match=r"none\.jpg: No such file"):
        encode(tmp_path / "none.jpg")


def test_a_folder_is_unreadable(tmp_path):
    with pytest.raises(ImageUnreadable, match="is a folder"):
        encode(tmp_path)


def test_a_path_that_cannot_exist_is_unreadable():
    with pytest.raises(ImageUnreadable, match="null byte"):
        encode("a\0b")


def test_a_file_beyond_grpcs_limit_is_not_even_read(tmp_path):
    path = tmp_path / "film.mkv"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no room
    with pytest.raises(ImageUnreadable, match="2 GiB"):
        encode(path)


def test_anything_else_is_a_type_error():
    with pytest.raises(TypeError, match="not object"):
        encode(object())
