"""A tag: one thing the model sees in an image, and where: its heat map, laid over the picture."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

Heatmap: TypeAlias = npt.NDArray[np.float32]
"""Weights of the picture's patches, (S/32, S/32), from the top left; their sum is 1."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture's width and height, from 0 to 1."""

HALF = 0.5  # of the largest weight: a box contains all that is over it
FINER = 8  # times as fine as the patches a box is
SHADE, OPACITY = (10, 10, 40), 0.8  # what lies over the picture where the weight is zero


@dataclass(frozen=True, slots=True)
class Tag:
    """One thing in an image.

    `name` is English and `name_zh` Chinese; `score` is the model's sigmoid, in 0..1; `id` is the
    tag's row in the model's tag list, or place among the request's own labels, from 0. `known` is
    False for a label that the model's tag list lacks. `heatmap` is where in the image it is, if
    that was asked for (`where=True`): weights of its patches, float32 (S/32, S/32), whose sum is 1;
    None too for tags after the 256th of an image.
    """

    name: str
    name_zh: str
    score: float
    id: int
    known: bool = True
    heatmap: Heatmap | None = field(default=None, compare=False, repr=False)

    @property
    def box(self) -> Box | None:
        """The smallest box around all of the heat map that exceeds half of its largest weight.

        Left, top, right, bottom, as shares of the image's width and height; None without a map.
        """
        return None if self.heatmap is None else box_of(self.heatmap)


def box_of(heatmap: Heatmap) -> Box:
    """The smallest box around all that exceeds half of the largest weight.

    The map is enlarged eight times for that, without steps between its patches. If a picture has
    several of a thing, the box may contain all of them.
    """
    height, width = (side * FINER for side in heatmap.shape)
    fine = enlarge(heatmap, width, height)
    over = fine > HALF * fine.max()
    rows, columns = (np.flatnonzero(over.any(axis=axis)) for axis in (1, 0))
    if not len(rows):  # all weights are zero
        return 0.0, 0.0, 1.0, 1.0
    left, top = columns[0] / width, rows[0] / height
    return float(left), float(top), (columns[-1] + 1) / width, (rows[-1] + 1) / height


def enlarge(heatmap: Heatmap, width: int, height: int) -> npt.NDArray[Any]:
    """The map in a picture's size, (height, width), between its patches' centres in proportion."""
    rows, columns = heatmap.shape
    fine: npt.NDArray[Any] = _spread(height, rows) @ heatmap @ _spread(width, columns).T
    return fine


def _spread(length: int, count: int) -> npt.NDArray[Any]:
    """What each of `count` values contributes to each of `length` places, (length, count)."""
    places = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    spread: npt.NDArray[Any] = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count)))
    return spread


def overlay(picture: PIL.Image.Image, heatmap: Heatmap) -> PIL.Image.Image:
    """The picture, which is RGB, in full light where the weight is largest, else in shade."""
    fine = enlarge(heatmap, picture.width, picture.height)
    shares = fine / (fine.max() or 1)
    shade = PIL.Image.fromarray((255 * OPACITY * (1 - shares)).astype(np.uint8), "L")
    return PIL.Image.composite(PIL.Image.new("RGB", picture.size, SHADE), picture, shade)
