"""How a part is written: parquet, JSON lines, or a webdataset shard with the tags added."""

import gzip
import io
import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import arrow_modules
from .item import Columns, Row

ROWS = 1000  # per row group
BYTES = 8 << 20  # of vectors per row group
FLOAT = 4
# Columns of tags: name, the tag's attribute, pyarrow's type. The last is for labels only.
TAGS = (
    ("tags", "name", "string"),
    ("tags_zh", "name_zh", "string"),
    ("scores", "score", "float32"),
    ("ids", "id", "int32"),
    ("known", "known", "bool_"),
)


class Part(ABC):
    """A part that is being written to a file of its own.

    Args:
        path: of the file.
        columns: that its rows have.
        notes: what a parquet file keeps about itself.
    """

    def __init__(self, path: Path, columns: Columns, notes: dict[str, str]):
        self._path, self._columns = path, columns
        self._file: BinaryIO = path.open("wb")

    @abstractmethod
    def add(self, row: Row) -> None:
        """Add a row."""

    def finish(self) -> None:
        """Write what is left, and have it survive a loss of power."""
        self._end()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _end(self) -> None:  # noqa: B027  # nothing, for lines
        """Write what the format has at its end."""


class JsonLines(Part):
    """One JSON object per line."""

    def add(self, row: Row) -> None:
        """Add a row."""
        self._write(_to_json(record(row, self._columns)) + b"\n")

    def _write(self, line: bytes) -> None:
        self._file.write(line)


class CompressedJsonLines(JsonLines):
    """The same, compressed."""

    def __init__(self, path: Path, columns: Columns, notes: dict[str, str]):
        super().__init__(path, columns, notes)
        # Neither name nor time: the same rows are the same bytes.
        self._compressor = gzip.GzipFile("", "wb", fileobj=self._file, mtime=0)

    def _write(self, line: bytes) -> None:
        self._compressor.write(line)

    def _end(self) -> None:
        self._compressor.close()


class Parquet(Part):
    """A parquet file, compressed with zstd."""

    def __init__(self, path: Path, columns: Columns, notes: dict[str, str]):
        pyarrow, parquet = arrow_modules(path)
        super().__init__(path, columns, notes)
        self._table = pyarrow.Table
        self._schema = schema(columns).with_metadata(notes)
        self._writer = parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        vectors = sum(filter(None, columns.sizes().values()))
        self._most = min(ROWS, max(1, BYTES // (FLOAT * vectors))) if vectors else ROWS
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(record(row, self._columns))
        if len(self._rows) >= self._most:
            self._write()

    def abandon(self) -> None:
        """Remove the file."""
        self._writer.is_open = False  # it would write to it when it is collected
        super().abandon()

    def _end(self) -> None:
        if self._rows:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []


class WebDataset(Part):
    """A .tar with the files of each sample, and its row as `.json`.

    If the sample has a `.json`, the row's fields are added to it; if that is not an object, the row
    is `.ram.json`. An image that is not from a shard becomes a sample that is called after its
    number, for its name may have dots and a sample's may not.
    """

    def __init__(self, path: Path, columns: Columns, notes: dict[str, str]):
        super().__init__(path, columns, notes)
        self._archive = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115

    def add(self, row: Row) -> None:
        """Add a sample."""
        fields, name = record(row, self._columns), "json"
        for suffix, content in row.members:
            before = _json_object(content) if suffix == "json" else None
            if before is None:
                self._add(row.sample, suffix, content)
                name = "ram.json" if suffix == "json" else name
            else:
                fields = before | fields
        self._add(row.sample, name, _to_json(fields))

    def _end(self) -> None:
        self._archive.close()

    def _add(self, key: str, suffix: str, content: bytes) -> None:
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))


FORMATS: dict[str, tuple[str, Callable[[Path, Columns, dict[str, str]], Part]]] = {
    "parquet": (".parquet", Parquet),
    "jsonl": (".jsonl", JsonLines),
    "jsonl.gz": (".jsonl.gz", CompressedJsonLines),
    "webdataset": (".tar", WebDataset),
}


def schema(columns: Columns) -> Any:
    """The parquet schema: tags is null for an image that failed, and empty for one without tags."""
    pa, _ = arrow_modules("parquet")
    sizes = columns.sizes().items()
    return pa.schema(
        [
            ("key", pa.string()),
            ("source", pa.string()),
            *((name, pa.list_(getattr(pa, kind)())) for name, _, kind in _of_tags(columns)),
            ("error", pa.string()),
            *((name, pa.list_(pa.float32(), size)) for name, size in sizes if size),
        ]
    )


def record(row: Row, columns: Columns) -> dict[str, Any]:
    """The fields of a row, as the schema has them."""
    fields: dict[str, Any] = {"key": row.key, "source": row.source}
    for name, attribute, _ in _of_tags(columns):
        fields[name] = None if row.tags is None else [getattr(tag, attribute) for tag in row.tags]
    fields["error"] = row.error
    for name, size in columns.sizes().items():
        if size:
            vector = getattr(row, name)
            # Not null itself: Arrow cannot read a null among lists of a fixed size.
            fields[name] = [None] * size if vector is None else vector
    return fields


def _of_tags(columns: Columns) -> tuple[tuple[str, str, str], ...]:
    return TAGS if columns.known else TAGS[:-1]


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=lambda vector: vector.tolist()).encode()


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
