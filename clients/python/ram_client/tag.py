"""A tag: one thing the model sees in an image."""

from dataclasses import dataclass, field

from .heatmap import Box, Heatmap, box_of


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
