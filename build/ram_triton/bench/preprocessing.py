"""What Python does to an image on one core: decoding before the engines, choosing tags after them.

The pictures for it are made here, with the statistics of photographs: amplitudes fall with
frequency, edges have all sizes, and there are a sensor's noise and a lens's softness. These decide
how large a JPEG is, and how long it takes to decode.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ram_triton.bench.measurement import Measurement, time_interleaved
from ram_triton.server_code import (
    ImageLimits,
    TagOptions,
    Vocabulary,
    open_image,
    postprocess,
    preprocess,
    squash,
)

QUALITY = 90
PHONE, WEB = (4000, 3000), (1632, 1224)
NO_LIMITS = ImageLimits(max_bytes=2**31, max_pixels=2**31)
POSTPROCESSED = 32  # images per batch
TAGS_THAT_PASS = 20  # per image, as RAM finds in a busy picture


@dataclass(frozen=True)
class Decoding:
    """What an encoded picture costs one core.

    Attributes:
        picture: its size and format.
        megabytes: size of the encoded picture.
        milliseconds: as the server decodes it.
        full_size: milliseconds if it is decoded at full size.
        difference: how far its pixels are from those of the full size, the mean in levels of 255.
    """

    picture: str
    megabytes: float
    milliseconds: Measurement
    full_size: Measurement
    difference: float

    @property
    def times_faster(self) -> Measurement:
        """How many times faster than at full size, round by round."""
        return self.full_size.over(self.milliseconds)

    def as_dict(self) -> dict[str, object]:
        """Return all figures by name, for JSON."""
        return {
            "picture": self.picture,
            "megabytes": self.megabytes,
            "milliseconds": self.milliseconds.as_dict(),
            "full_size_milliseconds": self.full_size.as_dict(),
            "times_faster": self.times_faster.as_dict(),
            "mean_difference": self.difference,
        }


def measure_decoding(
    name: str, encoded: bytes, image_size: int, rounds: int, random: np.random.Generator
) -> Decoding:
    """Time the decoding of one picture to pixels of `image_size`, in this thread."""
    ways: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
        "served": lambda: preprocess(encoded, image_size, NO_LIMITS),
        "full size": lambda: decode_fully(encoded, image_size),
    }
    taken = time_interleaved(ways, rounds, random)
    served, full = (np.asarray(way(), np.int16) for way in ways.values())
    difference = float(np.abs(served - full).mean())
    return Decoding(name, len(encoded) / 1e6, taken["served"], taken["full size"], difference)


def decode_fully(encoded: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Return the pixels as without the reduced scale, (size, size, 3) uint8."""
    return np.asarray(squash(open_image(encoded, NO_LIMITS), image_size, draft_margin=None))


def measure_postprocessing(
    vocabulary: Vocabulary, rounds: int, random: np.random.Generator
) -> Measurement:
    """Return the milliseconds that a batch of 32 images takes, in each of which 20 tags pass."""
    count = len(vocabulary.tags)
    logits = random.normal(-12, 1, (POSTPROCESSED, count)).astype(np.float32)
    for row in logits:
        row[random.permutation(count)[:TAGS_THAT_PASS]] = random.uniform(8, 12)
    run = partial(postprocess, logits, vocabulary, [TagOptions()] * POSTPROCESSED)
    return time_interleaved({"postprocess": run}, rounds, random)["postprocess"]


def sample_pictures(divisor: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield what people send: a phone's photo, a photo from the web, and that as PNG.

    Args:
        divisor: divides both sides of each picture; more than 1 for trying things out.
    """
    for size, formats in ((PHONE, ("JPEG",)), (WEB, ("JPEG", "PNG"))):
        width, height = (side // divisor for side in size)
        picture = make_picture(width, height)
        for name in formats:
            options = {"quality": QUALITY} if name == "JPEG" else {"compress_level": 6}
            megapixels = f"{width * height / 1e6:.2g} megapixels"
            yield f"{megapixels}, {name}", encode(picture, name, **options)


def make_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Make an RGB picture: noise of amplitude 1/frequency, shapes of all sizes, sensor noise."""
    random = np.random.default_rng(seed)
    grey = _one_over_f(random, width, height)
    tints = np.stack([_one_over_f(random, width, height) for _ in range(3)], -1)
    smooth = 120 + 40 * grey[..., None] + 15 * tints
    picture = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(150):
        # As many on each scale: what things at all distances look like.
        radius = width * 10 ** random.uniform(-3, -1)
        x, y = random.uniform(0, width), random.uniform(0, height)
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.regular_polygon((x, y, radius), int(random.integers(3, 12)), fill=colour)
    noise = random.normal(0, 2, (height, width, 3)).astype(np.float32)
    noisy = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(0.8))  # as optics and a sensor's colour filter do


def encode(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the picture as a file's bytes; `options` are those of Pillow's `save`."""
    buffer = BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def _one_over_f(random: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """Return (height, width) of mean 0 and deviation 1, its amplitudes 1/frequency."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width)))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(x, y)
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency, (height, width))
    return np.asarray(values / values.std(), np.float32)
