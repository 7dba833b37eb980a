"""A tag: one thing the model sees in an image."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tag:
    """One thing in an image.

    `name` is English and `name_zh` Chinese; `score` is the model's sigmoid, in 0..1; `id` is the
    tag's row in the model's tag list, from 0.
    """

    name: str
    name_zh: str
    score: float
    id: int
