"""Pictures with the statistics of photographs, made here.

Amplitudes fall with frequency, edges are of all sizes, and there are a sensor's noise and a lens's
softness: what decides how large a JPEG gets, and how long it takes to decode.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


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
        draw.regular_polygon((x, y, radius), random.integers(3, 12).item(), fill=colour)
    noise = random.normal(0, 2, (height, width, 3)).astype(np.float32)
    noisy = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(0.8))  # as optics and a sensor's colour filter do


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    """Return the picture as a file's bytes; `options` are those of Pillow's `save`."""
    buffer = BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def _one_over_f(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return (height, width) float32 of mean 0 and deviation 1, its amplitudes 1/frequency."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width)))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(x, y)
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency, (height, width))
    return (values / values.std()).astype(np.float32)
