"""An image on its way to be tagged: what is asked about it, what a server answers, and its row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferRequestedOutput

from .. import protocol
from ..async_client import AsyncRamClient
from ..errors import RamError, reason_of
from ..tag import Tag
from .errors import BulkError

Vector = npt.NDArray[np.float32]
VECTORS = ("embedding", "logits")
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
class Answer:
    """What a server found in an image."""

    tags: list[Tag]
    embedding: Vector | None = None
    logits: Vector | None = None


@dataclass(frozen=True)
class Columns:
    """What rows have beside key, source, tags and error.

    `known` is for tags that a file of labels brought; the others are numbers per vector, or None.
    """

    known: bool = False
    embedding: int | None = None
    logits: int | None = None

    def sizes(self) -> dict[str, int | None]:
        """Numbers per vector, by name."""
        return {name: getattr(self, name) for name in VECTORS}


@dataclass(frozen=True)
class Settings:
    """What is asked of the servers about each image; see `RamClient.tag`."""

    threshold: float | None = None
    top_k: int | None = None
    exclude: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    embedding: bool = False
    logits: bool = False

    async def ask(self, client: AsyncRamClient, image: bytes) -> Answer:
        """Have an image tagged by a server; raises RamError."""
        request = protocol.tag_request(
            [image],
            model=client.model,
            threshold=self.threshold,
            top_k=self.top_k,
            exclude=self.exclude,
            labels=self.labels,
        )
        vectors = [name for name in VECTORS if getattr(self, name)]
        request["outputs"] += map(InferRequestedOutput, vectors)
        result = await client._infer(request)
        (tags,) = protocol.read_tags(result)
        found = {name: protocol._output(result, name)[0].astype(np.float32) for name in vectors}
        return Answer(tags, **found)

    def columns(self, answer: Answer) -> Columns:
        """What rows with such an answer have."""
        vectors = (answer.embedding, answer.logits)
        return Columns(self.labels is not None, *(v if v is None else len(v) for v in vectors))


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

    def keep(self, answer: Answer) -> None:
        """Have what a server answered."""
        self.tags, self.embedding, self.logits = answer.tags, answer.embedding, answer.logits

    @contextmanager
    def keeping_error(self) -> Iterator[None]:
        """Have an error of the image's own, in the context, as a reason; others end the run."""
        try:
            yield
        except BulkError:
            raise
        except RamError as error:
            self.error = reason_of(error)
