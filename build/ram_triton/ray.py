"""Ray Data without a server: `EngineTagger` for `Dataset.map_batches`, the model on each worker.

dataset.map_batches(
    EngineTagger,
    fn_constructor_kwargs={"repository": "/shared/model_repository"},
    batch_format="pyarrow",
    num_cpus=os.cpu_count() - 1,
    compute=ray.data.ActorPoolStrategy(size=8),
)

A worker per machine, which leaves a processor to what reads and writes.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client.bulk.item import Columns, Row
from ram_client.concurrency import in_batches
from ram_client.errors import ImageUnreadable, InvalidRequest, reason_of
from ram_client.image import encode
from ram_client.protocol import read_tags
from ram_client.ray import BatchTagger, unwrapped

from ram_triton.engines.openvino import CompiledGraph, served_graphs
from ram_triton.repository import layout
from ram_triton.repository.repository import Repository
from ram_triton.server_code import (
    ImageError,
    RequestError,
    TagOptions,
    Vocabulary,
    postprocess,
    preprocess,
)

Pixels = npt.NDArray[np.uint8]

AT_ONCE = 8  # pictures that the engine gets together; more are not faster on a CPU
THREADS = "INFERENCE_NUM_THREADS"


class EngineTagger(BatchTagger):
    """Tags the images of a batch on the worker itself, as a server of the CPU profile would.

    Args:
        repository: a model repository with a model in it, where each worker can read it.
        image_column: as of `BatchTagger`.
        threshold, top_k, exclude: as of `RamClient.tag`.
        embedding, logits: whether there are columns for them.
        threads: of the engine, and of what decodes; by default one per core of the machine, which
            suits one worker per machine.

    Raises InvalidRequest for a wrong setting, RamTritonError for a repository without a model.
    """

    def __init__(
        self,
        repository: str | Path = layout.DEFAULT_REPOSITORY,
        *,
        image_column: str | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: Iterable[str] = (),
        embedding: bool = False,
        logits: bool = False,
        threads: int | None = None,
    ):
        super().__init__(image_column)
        root = Path(repository)
        Repository(root).require_manifest()
        self._vocabulary = Vocabulary.load(root / layout.VOCABULARY)
        self._image_size = int(json.loads((root / layout.PREPROCESSING).read_text())["image_size"])
        try:
            self._options = TagOptions(threshold, top_k or 0, tuple(exclude))
            for name in filter(None, self._options.exclude):
                self._vocabulary.find(name)
        except RequestError as error:
            raise InvalidRequest(str(error)) from error
        self._embedding, self._logits = embedding, logits
        limited = {THREADS: str(threads)} if threads else {}
        self._encoder, self._head = (
            CompiledGraph(path, properties | limited) for path, properties in served_graphs(root)
        )
        self._decoders = ThreadPoolExecutor(threads or os.cpu_count(), "decoder")

    def tag_all(self, images: list[Any]) -> tuple[list[Row], Columns]:
        """Decode them in threads, and tag those that could be decoded, some at a time."""
        rows = [Row("", "", "") for _ in images]
        decoded = filter(None, self._decoders.map(self._decode, rows, images))
        for some in in_batches(decoded, AT_ONCE):
            self._tag(some)
        return rows, Columns(False, **self._sizes())

    def _decode(self, row: Row, image: Any) -> tuple[Row, Pixels] | None:
        """Return a row and its pixels, (size, size, 3); None if the row has why there are none."""
        try:
            return row, preprocess(encode(unwrapped(image)), self._image_size)
        except ImageUnreadable as error:
            row.error = reason_of(error)
        except ImageError as error:
            row.error = f"image: {reason_of(error)}"  # as the server names the input
        return None

    def _tag(self, decoded: list[tuple[Row, Pixels]]) -> None:
        """Fill in rows."""
        encoded = self._encoder(pixels=np.stack([pixels for _, pixels in decoded]))
        logits = self._head(image_embeds=encoded["image_embeds"])["logits"]
        found = postprocess(logits, self._vocabulary, [self._options] * len(decoded))
        answers = read_tags(SimpleNamespace(as_numpy=found.get))
        for index, ((row, _), tags) in enumerate(zip(decoded, answers, strict=True)):
            row.tags = tags
            row.embedding = encoded["embedding"][index] if self._embedding else None
            row.logits = logits[index] if self._logits else None

    def _sizes(self) -> dict[str, int]:
        """Return the numbers per vector of a row, by name."""
        outputs = {
            "embedding": (self._embedding, self._encoder),
            "logits": (self._logits, self._head),
        }
        return {
            name: graph.model.output(name).partial_shape[1].get_length()
            for name, (wanted, graph) in outputs.items()
            if wanted
        }
