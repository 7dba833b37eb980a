"""A tag: one thing the model sees in an image."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tag:
    """One thing in an image.

    `name` is English and `name_zh` Chinese; `score` is the model's sigmoid, in 0..1; `id` is the
    tag's row in the model's tag list, or place among the request's own labels, from 0. `known` is
    False for a label that the model's tag list lacks.
    """

    name: str
    name_zh: str
    score: float
    id: int
    known: bool = True
