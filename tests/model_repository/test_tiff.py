"""TIFFs of kinds that few write: any bits, types of numbers, planes, alpha channels, palettes."""

from itertools import product

import numpy as np
import pytest
from experiments.image_files import STORED_AS, tiff
from PIL import Image
from support.pixels import near, problem

W, H = 24, 18


@pytest.fixture
def levels(photo) -> np.ndarray:
    """Levels 0 to 1, (H, W, 3)."""
    return np.asarray(photo.resize((W, H))) / 255


def base(bits: int, samples: int, colours: int, data: bytes, **more: int) -> dict:
    tags = {256: W, 257: H, 258: (bits,) * samples, 259: 1, 262: colours, 277: samples}
    return {**tags, 278: H, 279: len(data), **{int(tag[1:]): v for tag, v in more.items()}}


def samples(levels: np.ndarray, bits: int, kind: int, order: str) -> bytes:
    if kind == 3:
        return levels.astype(f"{order}f{bits // 8}").tobytes()
    white = 2 ** (bits - (kind == 2)) - 1
    return np.rint(levels * white).astype(f"{order}{'ui'[kind - 1]}{bits // 8}").tobytes()


KINDS = [
    *product((8, 16, 32), (1, 2)),
    (32, 3),
    (64, 3),
    (16, 3),
]


@pytest.mark.parametrize("order, big", [*product("<>", (False, True))])
@pytest.mark.parametrize("bits, kind", KINDS)
@pytest.mark.parametrize("colours", [0, 1, 2])
def test_tiffs_of_whole_bytes(colours, bits, kind, order, big, levels):
    values = levels if colours == 2 else levels[..., :1]
    data = samples(1 - values if colours == 0 else values, bits, kind, order)
    count = values.shape[2]
    encoded = tiff(base(bits, count, colours, data, _339=(kind,) * count), data, 273, order, big)
    shown = np.rint(255 * np.broadcast_to(values, levels.shape)).astype(np.uint8)
    near(encoded, Image.fromarray(shown), 2)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14, 24])
@pytest.mark.parametrize("colours", [1, 2])
def test_tiffs_of_odd_bits(colours, bits, levels):
    values = levels if colours == 2 else levels[..., :1]
    whole = np.rint(values * (2**bits - 1)).astype(np.int64)
    rows = ["".join(f"{value:0{bits}b}" for value in row.flatten().tolist()) for row in whole]
    rows = [row + "0" * (-len(row) % 8) for row in rows]
    data = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    encoded = tiff(base(bits, values.shape[2], colours, data), data, order=">")
    shown = np.rint(255 * whole / (2**bits - 1)).astype(np.uint8)
    near(encoded, Image.fromarray(np.broadcast_to(shown, levels.shape).copy()), 2)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_whose_colours_lie_in_planes(bits, levels):
    planes = samples(levels.transpose(2, 0, 1), bits, 1, "<")
    each = len(planes) // 3
    tags = base(bits, 3, 2, planes, _284=2)
    tags[279] = (each,) * 3
    start = len(tiff({**tags, 273: (0, 0, 0)}, b""))
    tags[273] = tuple(start + plane * each for plane in range(3))
    near(tiff(tags, planes), Image.fromarray(np.rint(255 * levels).astype(np.uint8)), 1)


# What is premultiplied in CMYK is not agreed on.
ALPHAS = [("CMYK", 2), *product(("grey", "RGB"), (1, 2))]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours, extra", ALPHAS)
def test_tiffs_with_alpha_are_laid_over_white(colours, bits, extra, levels):
    alpha = np.linspace(0, 1, W * H).reshape(H, W, 1)
    rgb = levels if colours != "grey" else np.repeat(levels[..., :1], 3, 2)
    shown = rgb * alpha + 1 - alpha
    own = {"grey": rgb[..., :1], "RGB": rgb, "CMYK": np.concatenate([1 - rgb, 0 * alpha], 2)}
    values = own[colours]
    if extra == 1:
        values = values * alpha
    data = samples(np.concatenate([values, alpha], 2), bits, 1, "<")
    photometric = {"grey": 1, "RGB": 2, "CMYK": 5}[colours]
    tags = base(bits, values.shape[2] + 1, photometric, data, _338=extra)
    near(tiff(tags, data), Image.fromarray(np.rint(255 * shown).astype(np.uint8)), 4)


@pytest.mark.parametrize("scale", [1, 257])
def test_a_tiffs_palette_may_have_levels_of_8_bits(scale, photo):
    image = photo.resize((W, H)).quantize(16)
    palette = np.asarray(image.getpalette()[:48] + [0] * 720).reshape(256, 3).T
    data = np.asarray(image).tobytes()
    tags = base(8, 1, 3, data) | {320: tuple((palette * scale).flatten().tolist())}
    near(tiff(tags, data), image)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_of_cmyk_may_have_16_bits(bits, levels):
    inks = np.concatenate([1 - levels, np.zeros((H, W, 1))], 2)
    data = samples(inks, bits, 1, "<")
    shown = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
    near(tiff(base(bits, 4, 5, data), data), shown, 2)


def test_a_tiffs_palette_may_have_more_than_256_entries(levels):
    grey = np.rint(levels[..., 0] * 65535).astype("<u2")
    tags = base(16, 1, 3, grey.tobytes()) | {320: tuple(range(65536)) * 3}
    shown = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    near(tiff(tags, grey.tobytes()), Image.fromarray(shown))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits, kind", [(8, 1), (16, 1), (16, 2)])
def test_odd_tiffs_are_turned_upright(orientation, bits, kind, levels):
    upright = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
    stored = np.asarray(STORED_AS[orientation](upright)) / 255
    # Big-endian BigTIFF is what sends even 8 bits past Pillow.
    order = ">" if bits == 8 else "<"
    data = samples(stored, bits, kind, order)
    tags = base(bits, 3, 2, data, _339=(kind,) * 3, _274=orientation)
    tags |= {256: stored.shape[1], 257: stored.shape[0], 278: stored.shape[0]}
    near(tiff(tags, data, 273, order, big=bits == 8), upright, 2)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_tiff_of_an_odd_kind_is_told(share, levels):
    data = samples(levels, 16, 2, "<")
    encoded = tiff(base(16, 3, 2, data, _339=(2,) * 3), data)
    assert "TIFF is truncated or damaged" in problem(encoded[: int(len(encoded) * share)])


def test_tiffs_that_are_not_read_are_named(levels):
    data = samples(levels, 16, 1, "<")
    assert "camera's raw file" in problem(tiff(base(16, 3, 32803, data), data))
    dark = np.full((H, W), 300, "<u4").tobytes()
    assert "no defined brightness range" in problem(tiff(base(32, 1, 1, dark), dark))
