"""What is asked: the kinds of requests."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pictures import Picture


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: of the task that sends it.
        settings: `threshold` or `top_k`, as the client takes them.
        labels: the request's own tags, to the model that takes them; none to the other.
        images: how many pictures a request carries.
        refused: whether the proper answer is an error.
    """

    name: str
    settings: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()
    images: int = 1
    refused: bool = False

    @property
    def label(self) -> str:
        """How reports call it: its name with what it asks for, `top_k 5`."""
        if self.images > 1:
            return f"{self.name} of {self.images}"
        if self.labels:
            return f"{self.name} with {len(self.labels)} labels"
        return " ".join([self.name, *(f"{value:g}" for value in self.settings.values())])


@dataclass(frozen=True)
class Request:
    """A request to be sent: its kind, and its pictures."""

    kind: Kind
    pictures: Sequence[Picture]


@dataclass
class Traffic:
    """Draws requests.

    Attributes:
        pictures: what good requests carry.
        broken: what has to be refused.
        kinds: by name; in place of one that is not there plain ones are sent.
        generator: draws the pictures.
    """

    pictures: list[Picture]
    broken: list[Picture]
    kinds: dict[str, Kind]
    generator: random.Random = field(default_factory=random.Random)

    def request(self, kind: str) -> Request:
        """Return a request of this kind with pictures drawn at random."""
        drawn = self.kinds.get(kind, self.kinds["plain"])
        source = self.broken if drawn.refused else self.pictures
        return Request(drawn, self.generator.choices(source, k=drawn.images))


def make_kinds(threshold: float, top_k: int, batch: int) -> dict[str, Kind]:
    """Return the kinds of requests by name."""
    kinds = (
        Kind("plain"),
        Kind("threshold", {"threshold": threshold}),
        Kind("top_k", {"top_k": top_k}),
        Kind("batch", images=batch),
        Kind("broken", refused=True),
    )
    return {kind.name: kind for kind in kinds}
