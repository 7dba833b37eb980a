"""The preprocessor alone, on one core: JPEGs at full and at reduced scale, PNGs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ram_triton.bench.figure import Figure, take_turns
from ram_triton.bench.photographs import encode, make_picture
from ram_triton.server_code import ImageLimits, open_image, preprocess, squash

QUALITY = 90
PHONE, WEB = (4000, 3000), (1632, 1224)
LIMITS = ImageLimits(max_bytes=2**31, max_pixels=2**31)


@dataclass(frozen=True)
class Decoding:
    """What an encoded picture costs one core.

    Attributes:
        picture: what it is.
        megabytes: of the encoded picture.
        milliseconds: as the server decodes it.
        full_size: milliseconds where it is decoded at full size.
        difference: how far its pixels are from those of the full size, the mean in levels of 255.
    """

    picture: str
    megabytes: float
    milliseconds: Figure
    full_size: Figure
    difference: float

    @property
    def times_faster(self) -> Figure:
        """How many times faster than at full size, turn by turn."""
        pairs = zip(self.full_size.values, self.milliseconds.values, strict=True)
        return Figure(tuple(full / served for full, served in pairs))

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


def sample_pictures(divisor: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield what people send: a phone's photo, a photo from the web, and that as PNG.

    Args:
        divisor: of both sides of each picture; more than 1 for trying things out.
    """
    for size, formats in ((PHONE, ("JPEG",)), (WEB, ("JPEG", "PNG"))):
        width, height = (side // divisor for side in size)
        picture = make_picture(width, height)
        for name in formats:
            options = {"quality": QUALITY} if name == "JPEG" else {"compress_level": 6}
            megapixels = f"{width * height / 1e6:.2g} megapixels"
            yield f"{megapixels}, {name}", encode(picture, name, **options)


def measure_decoding(
    name: str, encoded: bytes, image_size: int, repeats: int, random: np.random.Generator
) -> Decoding:
    """Time one picture, to pixels of `image_size`, in this thread."""
    ways = {
        "served": lambda: preprocess(encoded, image_size, LIMITS),
        "full size": lambda: decode_fully(encoded, image_size),
    }
    taken = take_turns(ways, repeats, random)
    served, full = (np.asarray(way(), np.int16) for way in ways.values())
    difference = float(np.abs(served - full).mean())
    return Decoding(name, len(encoded) / 1e6, taken["served"], taken["full size"], difference)


def decode_fully(encoded: bytes, image_size: int) -> np.ndarray:
    """Return the pixels as without the reduced scale, (size, size, 3) uint8."""
    return np.asarray(squash(open_image(encoded, LIMITS), image_size, draft_margin=None))
