"""BMPs of kinds that few write: masks, runs, alpha channels."""

import struct
from itertools import product

import numpy as np
import pytest
from experiments.image_files import bmp
from PIL import Image
from ram_triton.server_code import preprocess
from support.pixels import SIZE, near, problem

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
