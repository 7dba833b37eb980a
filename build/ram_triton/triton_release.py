"""Triton's releases: which one serves, and which are too old for a network."""

import os
from collections.abc import Mapping

Release = tuple[int, int]  # year and month, such as (26, 7)

WHEEL = "24.10"  # of nvidia-pytriton 0.7.0
SAFE: Release = (26, 7)  # the oldest that a network may reach; SECURITY.md has what older ones lack
OLDEST, NEWEST = "{}.{:02}".format(*SAFE), "26.11"  # the same; that the container has
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


def parse(release: str | None) -> Release | None:
    """Return a release's year and month; None if that is unknown, or not a release."""
    year, _, month = (release or "").partition(".")
    return (int(year), int(month[:2])) if year.isdecimal() and month[:2].isdecimal() else None


def flaws(release: str) -> list[str]:
    """Return what a release is known to have, in words, the gravest first.

    Args:
        release: as NVIDIA counts them: year and month, `26.07`.
    """
    return [flaw for fixed, flaw in FLAWS.items() if _is_older(release, fixed)]


def is_too_old(release: str) -> bool:
    """Return whether a release must not be reached from a network."""
    return _is_older(release, OLDEST)


def _is_older(release: str, other: str) -> bool:
    """Compare two releases; what is not a release counts as old."""
    return (parse(release) or (0, 0)) < (parse(other) or (0, 0))
