"""Ray Data: `RamTagger` for `Dataset.map_batches`, for those who outgrow `ram-bulk` on one machine.

dataset.map_batches(
    RamTagger,
    fn_constructor_kwargs={"server": "a:8001,b:8001"},
    batch_format="pyarrow",
    compute=ray.data.ActorPoolStrategy(size=8),
)
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from .bulk.errors import BulkError, arrow_modules
from .bulk.item import Columns, Row, Settings
from .bulk.servers import Servers
from .bulk.shards import IMAGE_NAMES
from .bulk.sinks import record, schema
from .errors import ImageUnreadable
from .image import ImageLike, encode

if TYPE_CHECKING:
    import pyarrow

_LOG = logging.getLogger(__name__)
_OF_SOURCES = ("key", "source")


class BatchTagger(ABC):
    """What tags the images of a batch: a column of images in, `ram-bulk`'s columns of tags out.

    Args:
        image_column: encoded images, `{bytes, path}` or arrays uint8 (height, width, 3); by default
            the first column that has a usual name. It is left out of the result, the others are
            kept.
    """

    def __init__(self, image_column: str | None):
        self._image_column = image_column

    @abstractmethod
    def tag_all(self, images: list[Any]) -> tuple[list[Row], Columns]:
        """Return a row per image, without key and source, and what the rows have."""

    def __call__(self, batch: "Mapping[str, Any] | pyarrow.Table") -> "pyarrow.Table":
        """Tag a batch, as Ray gives it in the formats "numpy" and "pyarrow".

        Raises RamError for what all images would meet: no server, a wrong threshold, a missing key.
        """
        pa, _ = arrow_modules(type(self).__name__)
        names = list(batch.column_names if isinstance(batch, pa.Table) else batch)
        column = self._image_column or next((n for n in IMAGE_NAMES if n in names), None)
        if column is None or column not in names:
            raise BulkError(f"no column of images: give image_column one of {', '.join(names)}")
        rows, columns = self.tag_all(_values(batch[column]))
        fields = [
            {name: value for name, value in record(row, columns).items() if name not in _OF_SOURCES}
            for row in rows
        ]
        wanted = pa.schema([field for field in schema(columns) if field.name not in _OF_SOURCES])
        table = pa.Table.from_pylist(fields, wanted)
        for position, name in enumerate(n for n in names if n not in (column, *wanted.names)):
            table = table.add_column(position, name, _column(pa, batch[name]))
        return table


class RamTagger(BatchTagger):
    """Tags the images of a batch: a column of images in, `ram-bulk`'s columns of tags out.

    A worker keeps its connections from batch to batch, sends as many images at once as the servers
    can take, and leaves out servers that are away. An image that fails has its reason in `error`.

    Args:
        server: `host:port` of gRPC, or several with commas between them.
        image_column: as of `BatchTagger`; arrays are sent as PNG.
        threshold, top_k, exclude, labels: as of `RamClient.tag`.
        embedding, logits: whether there are columns for them.
        concurrency: requests in flight per server and worker, at most.
        timeout: seconds per request.
        wait: seconds without any server after which the batch fails, for Ray to try it again.
        connection: further arguments of `AsyncRamClient`, such as `headers` or `tls`.
    """

    def __init__(
        self,
        server: str = "localhost:8001",
        *,
        image_column: str | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: Iterable[str] = (),
        labels: Iterable[str] | None = None,
        embedding: bool = False,
        logits: bool = False,
        concurrency: int = 16,
        timeout: float = 60.0,
        wait: float = 180.0,
        **connection: Any,
    ):
        super().__init__(image_column)
        names = [name.strip() for name in server.split(",") if name.strip()]
        labels = None if labels is None else tuple(labels)
        self._runner = asyncio.Runner()
        self._servers = Servers(
            names,
            Settings(threshold, top_k, tuple(exclude), labels, embedding, logits),
            connection | {"timeout": timeout},
            most=concurrency,
            wait=wait,
            report=_LOG.warning,
        )

    def tag_all(self, images: list[Any]) -> tuple[list[Row], Columns]:
        """Have the servers tag them, at their pace."""
        return self._runner.run(self._tag_all(images))

    async def _tag_all(self, images: list[Any]) -> tuple[list[Row], Columns]:
        async with self._servers.looked_after() as columns:
            return await asyncio.gather(*map(self._tag, images)), columns

    async def _tag(self, image: Any) -> Row:
        row = Row("", "", "")
        with row.keeping_error():
            row.keep(await self._servers.tag(encode(unwrapped(image))))
        return row


def _values(column: Any) -> list[Any]:
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


def _column(pa: Any, values: Any) -> Any:
    if isinstance(values, pa.ChunkedArray):
        return values
    return pa.array(values.tolist() if isinstance(values, np.ndarray) else values)


def unwrapped(image: Any) -> ImageLike:
    """Return the image of a value in a column; raises ImageUnreadable if there is none."""
    if isinstance(image, dict):  # of data sets' libraries
        image = image.get("bytes") or image.get("path")
    if isinstance(image, np.ndarray):
        try:
            return PIL.Image.fromarray(image)
        except (TypeError, ValueError) as error:
            raise ImageUnreadable(f"the array is not a picture: {error}") from error
    if not image:
        raise ImageUnreadable("no image in this row")
    return image  # type: ignore[no-any-return]
