"""Triton's releases: which one serves, and which are too old for a network."""

import os
from collections.abc import Mapping

WHEEL = "24.10"  # of nvidia-pytriton
OLDEST, NEWEST = "26.07", "26.11"  # that a network may reach; that the container has
VARIABLE = "NVIDIA_TRITON_SERVER_VERSION"  # set in NVIDIA's images

# Which releases have known flaws: those older than the key.
FLAWS = {
    OLDEST: "known vulnerabilities of severity 9.8 (SECURITY.md)",
    "26.08": "a batcher that can stall under load (server#8870)",
    NEWEST: "a use-after-free in the dynamic batcher",
}


def image_release(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the release of NVIDIA's image in which this runs, such as `26.11`; None elsewhere."""
    return environment.get(VARIABLE) or None


def flaws(release: str) -> list[str]:
    """Return what a release is known to have, in words, the gravest first.

    Args:
        release: as NVIDIA counts them: year and month, `26.07`.
    """
    return [flaw for fixed, flaw in FLAWS.items() if _number(release) < _number(fixed)]


def is_too_old(release: str) -> bool:
    """Return whether a release must not be reached from a network."""
    return _number(release) < _number(OLDEST)


def _number(release: str) -> tuple[int, int]:
    """Return year and month; of what is not a release (0, 0), so that it counts as old."""
    year, _, month = release.partition(".")
    return (int(year), int(month[:2])) if year.isdecimal() and month[:2].isdecimal() else (0, 0)
