"""What is asked about each image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferRequestedOutput

from .. import protocol
from ..async_client import AsyncRamClient
from .item import VECTORS, Answer


@dataclass(frozen=True)
class Settings:
    """What is asked of the servers about each image; see `RamClient.tag`."""

    threshold: float | None = None
    top_k: int | None = None
    exclude: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    embedding: bool = False
    logits: bool = False

    def request(self, image: bytes, model: str) -> dict[str, Any]:
        """The arguments of tritonclient's `infer`."""
        request = protocol.tag_request(
            [image],
            model=model,
            threshold=self.threshold,
            top_k=self.top_k,
            exclude=self.exclude,
            labels=self.labels,
        )
        vectors = [name for name in VECTORS if getattr(self, name)]
        request["outputs"] += [InferRequestedOutput(name) for name in vectors]
        return request

    async def ask(self, client: AsyncRamClient, image: bytes) -> Answer:
        """Have an image tagged by a server; raises RamError."""
        result = await client._infer(self.request(image, client.model))
        (tags,) = protocol.read_tags(result)
        vectors = {
            name: protocol._output(result, name)[0].astype(np.float32)
            for name in VECTORS
            if getattr(self, name)
        }
        return Answer(tags, **vectors)
