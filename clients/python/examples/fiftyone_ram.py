"""A FiftyOne model that asks a RAM server: tags as classifications, and embeddings.

    dataset.apply_model(RamModel("localhost:8001"), label_field="ram", batch_size=32)
    dataset.compute_embeddings(RamModel("localhost:8001"), embeddings_field="ram_embedding")

FiftyOne decodes the pictures, and they are sent as pixels.
"""

from collections.abc import Iterable
from typing import Any

import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import numpy as np
import numpy.typing as npt
from ram_client import RamClient, Tag

Picture = npt.NDArray[np.uint8]  # height x width x 3, RGB


class RamModel(fom.EmbeddingsMixin, fom.Model):
    """Tags images with the RAM of a Triton server.

    server: "host:port" of its gRPC endpoint.
    settings: as of `RamClient.tag`: threshold, top_k, exclude, labels.

    Batches have at most as many pictures as the server takes (32). Raises the errors of
    `ram_client.errors`; `apply_model` logs them, and goes on unless `skip_failures=False`.
    """

    media_type = "image"
    has_embeddings = True
    ragged_batches = False  # pictures of any size go together
    transforms = None
    preprocess = False

    def __init__(self, server: str = "localhost:8001", **settings: Any) -> None:
        self._client = RamClient(server)
        self._settings = settings

    def predict(self, arg: Picture) -> fol.Classifications:
        """The tags of a picture, highest score first, with their Chinese names in `name_zh`."""
        return _classifications(self._client.tag(arg, **self._settings))

    def predict_all(self, args: Iterable[Picture]) -> list[fol.Classifications]:
        """The tags of each picture, from one request."""
        return list(map(_classifications, self._client.tag_batch(list(args), **self._settings)))

    def embed(self, arg: Picture) -> npt.NDArray[np.float32]:
        """A picture's embedding: float32 (D,)."""
        return self._client.embed(arg)

    def embed_all(self, args: Iterable[Picture]) -> npt.NDArray[np.float32]:
        """The pictures' embeddings: float32 (B, D), from one request."""
        return self._client.embed_batch(list(args))


def _classifications(tags: list[Tag]) -> fol.Classifications:
    return fol.Classifications(
        classifications=[
            fol.Classification(label=tag.name, confidence=tag.score, name_zh=tag.name_zh)
            for tag in tags
        ]
    )
