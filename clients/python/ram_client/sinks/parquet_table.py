"""Parquet, a row per tag, by pyarrow."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import installing
from .sink import TableFailed
from .tables import Row

GROUP = 100_000  # rows in memory at once


class Parquet:
    """The format of `--parquet`.

    Made in the main thread: pyarrow crashes later if a thread that has ended imported it (seen with
    25.0). Raises TableFailed without pyarrow.
    """

    def __init__(self) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError as error:
            message = f"--parquet needs pyarrow: {installing('parquet')}"
            raise TableFailed(message) from error
        except ImportError as error:  # of another numpy's
            raise TableFailed(f"--parquet: {error}") from error

    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows; ValueError if the columns are others."""
        from pyarrow import ArrowException, parquet

        try:
            with parquet.ParquetFile(path) as table:
                if table.schema_arrow != _schema():
                    raise ValueError
                for batch in table.iter_batches(GROUP):
                    yield from map(Row, *(column.to_pylist() for column in batch.columns))
        except (ArrowException, ValueError) as error:
            raise ValueError("is another table, and was left as it is") from error

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write the rows in groups."""
        import pyarrow
        from pyarrow import parquet

        rows, schema = iter(rows), _schema()
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(rows, GROUP)):
                columns = dict(zip(Row._fields, zip(*group, strict=True), strict=True))
                writer.write_table(pyarrow.table(columns, schema=schema))


def _schema() -> Any:
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field("file", pyarrow.string(), nullable=False),
            ("name", pyarrow.string()),
            ("name_zh", pyarrow.string()),
            ("score", pyarrow.float64()),
            ("id", pyarrow.int32()),
            ("known", pyarrow.bool_()),
        ]
    )
