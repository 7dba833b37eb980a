"""Versions of TensorRT, such as `10.16.1.11`, compared as far as both are told."""

import re


def same(one: str, other: str) -> bool:
    """Tell whether both are the same; a library tells fewer numbers than Python does."""
    numbers = _numbers(one, other)
    return numbers[0] == numbers[1] != ()


def loads_compatible(at_hand: str, built: str) -> bool:
    """Tell whether TensorRT `at_hand` loads the version-compatible plans that `built` made.

    Those of its own major version do, from the builder's own on.
    """
    here, builder = _numbers(at_hand, built)
    return here[:1] == builder[:1] != () and here >= builder


def _numbers(*versions: str) -> list[tuple[int, ...]]:
    numbers = [tuple(map(int, re.findall(r"\d+", version))) for version in versions]
    told = min(map(len, numbers))
    return [each[:told] for each in numbers]
