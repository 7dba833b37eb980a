"""An image on its way to be tagged, and its row."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..tag import Tag

Vector = npt.NDArray[np.float32]
Members = list[tuple[str, bytes]]
"""The files of a webdataset sample: suffix without the first dot, and content."""


@dataclass(slots=True)
class Item:
    """An image of a source: its bytes, or the place to read them from, or why there are none.

    `position` counts the images of the unit, from 0. `members` has the sample's files if the output
    is to have them, too.
    """

    position: int
    key: str
    source: str
    image: bytes | None = None
    place: str | None = None
    error: str | None = None
    members: Members = field(default_factory=list)


@dataclass(slots=True)
class Row:
    """What the output has of an image: its tags, or the reason why there are none.

    `sample` is its name in a webdataset shard, which cannot have dots.
    """

    key: str
    source: str
    sample: str
    tags: list[Tag] | None = None
    error: str | None = None
    embedding: Vector | None = None
    logits: Vector | None = None
    members: Members = field(default_factory=list)
