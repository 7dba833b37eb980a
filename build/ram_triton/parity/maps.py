"""How far heat maps agree with PyTorch's, and of which tags maps are compared."""

from dataclasses import dataclass

import numpy as np

from ram_triton.engines.tagger import Array, Logits
from ram_triton.errors import ParityError
from ram_triton.parity.figures import Figures
from ram_triton.parity.limits import Limits

SHOWN = 8  # tags per image


@dataclass(frozen=True)
class MapAgreement(Figures):
    """How far a candidate's heat maps agree with those of a reference.

    Attributes:
        maps: how many were compared.
        largest_map_difference: of two weights of a map, whose sum is 1; NaN if a weight is NaN.
    """

    maps: int
    largest_map_difference: float

    def beyond(self, limits: Limits) -> list[str]:
        """Return a phrase for each figure beyond its limit, with both numbers."""
        if self.largest_map_difference <= limits.map_difference:
            return []
        return [
            f"largest difference of a heat map's weights {self.largest_map_difference:.3g}, the "
            f"limit is {limits.map_difference:g}"
        ]

    def __str__(self) -> str:
        return f"largest difference {self.largest_map_difference:.2g} in {self.maps} heat maps"


def choose_tags(logits: Logits) -> Array:
    """Choose the tags whose maps are compared: of each image the highest-scoring ones.

    Args:
        logits: (images, tags).

    Returns:
        (images, shown + 1) int32; the last column is padding, to be checked too.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :SHOWN]
    return np.pad(best, ((0, 0), (0, 1)), constant_values=-1).astype(np.int32)


def compare_maps(expected: Array, tag_ids: Array, actual: Array, actual_ids: Array) -> MapAgreement:
    """Compare a candidate's heat maps with a reference's, tag by tag.

    Args:
        expected: the reference's maps, (images, tags, side, side).
        tag_ids: of which tag each is, (images, tags).
        actual: the candidate's, likewise.
        actual_ids: likewise; tags that only one of both has are not compared.

    Raises:
        ParityError: the maps' sizes differ, or there is nothing to compare.
    """
    if expected.shape[2:] != actual.shape[2:]:
        raise ParityError(
            f"heat maps of shapes {expected.shape} and {actual.shape} cannot be compared"
        )
    differences = []
    for maps, ids, others, other_ids in zip(expected, tag_ids, actual, actual_ids, strict=True):
        places = {int(tag): place for place, tag in enumerate(other_ids)}
        for own, tag in zip(maps, ids, strict=True):
            if int(tag) in places:
                differences.append(np.abs(own - others[places[int(tag)]]).max())
    if not differences:
        raise ParityError("there are no heat maps to compare")
    return MapAgreement(len(differences), float(np.max(differences)))
