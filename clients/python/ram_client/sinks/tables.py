"""Tables with the tags of all pictures, CSV and parquet, a row per tag.

A journal while the command runs, the table at its end.
"""

import csv
import errno
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from io import FileIO
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from ..errors import installing, reason_of
from ..files import Source
from ..tag import Tag
from .sink import Sink, TableFailed, explained, replacing, text_of

try:
    import fcntl
except ImportError:  # Windows: two commands with one table are the user's to avoid
    fcntl = None  # type: ignore[assignment]

JOURNAL = ".part"
GROUP = 100_000  # rows of parquet in memory at once
ANOTHER = "is another table, and was left as it is"

_TRUTH = {"": None, "true": True, "false": False}


class Row(NamedTuple):
    """One tag of a picture; a picture without tags has a row with nothing but `file`."""

    file: str
    name: str | None = None
    name_zh: str | None = None
    score: float | None = None
    id: int | None = None
    known: bool | None = None


def rows_of(source: Source, tags: list[Tag]) -> list[Row]:
    """A picture's rows, best tag first."""
    file = text_of(source)
    return [
        Row(file, tag.name, tag.name_zh, round(tag.score, 6), tag.id, tag.known) for tag in tags
    ] or [Row(file)]


class TableFile(Sink):
    """A table in a file that can only be written as a whole.

    What is added goes to a journal beside it, JSON with a line per picture. At the end, and so
    after Ctrl-C, the table is written again: with the old rows of pictures that were not tagged
    again, and those of the journal. After a kill, the next run begins with the journal.
    """

    def __init__(self, path: Path):
        self._path = path
        self._journal_path = path.with_name(path.name + JOURNAL)
        self._journal: FileIO | None = None
        self._known: set[str] | None = None
        self._added: set[str] = set()

    @abstractmethod
    def _read(self, path: Path) -> Iterator[Row]:
        """Yield a table's rows; raises ValueError for another table, OSError."""

    @abstractmethod
    def _write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write a table; raises OSError."""

    def open(self) -> None:
        """Lock the journal, and finish that of a run that was killed."""
        if self._path.exists() and not self._path.is_file():
            raise TableFailed(f"{self._path}: is not a file")
        next(self._old(), None)  # is it one of ours?
        with explained(self._path, TableFailed):
            try:
                self._journal = self._lock_journal()
            except BlockingIOError as error:
                raise TableFailed(f"{self._path}: another ram-tag is writing it") from error
            if self._has_journal():
                self._merge()

    def _lock_journal(self) -> FileIO:
        while True:
            journal = self._journal_path.open("a+b", buffering=0)
            if fcntl is None:
                return journal
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another run may have ended, and removed it, after it was opened here.
                if os.path.samestat(os.fstat(journal.fileno()), self._journal_path.stat()):
                    return journal
            except FileNotFoundError:
                pass
            except OSError:
                journal.close()
                raise
            journal.close()

    def has(self, source: Source) -> bool:
        """Whether the table has rows of the picture."""
        if self._known is None:
            self._known = {row.file for row in self._old()}
            self._known |= {rows[0].file for rows in self._journalled()}
        return text_of(source) in self._known

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Add a picture to the journal."""
        assert self._journal
        file, *_ = rows = rows_of(source, tags)
        if file.file in self._added:  # named twice
            return
        line = json.dumps(rows).encode() + b"\n"
        with explained(self._path, TableFailed):
            if self._journal.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._added.add(file.file)

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """The table, the picture, and its tags."""
        names = ", ".join(row.name for row in rows_of(source, tags) if row.name)
        return f"{self._path}: {source}: {names or 'no tags'}"

    def close(self) -> None:
        """Write the table."""
        if self._journal is None:
            return
        try:
            if self._has_journal():
                self._merge()
            self._journal_path.unlink()
        except (OSError, TableFailed) as error:
            kept = f" (what was done is in {self._journal_path}: run again)" * self._has_journal()
            reason = reason_of(error).removeprefix(f"{self._path}: ")
            raise TableFailed(f"{self._path}: {reason}{kept}") from error
        finally:
            self._journal.close()

    def _has_journal(self) -> bool:
        """Whether the journal has anything, of this run or of one before that could not merge."""
        return self._journal is not None and self._journal.seek(0, os.SEEK_END) > 0

    def _merge(self) -> None:
        assert self._journal
        replaced = {rows[0].file for rows in self._journalled()}
        old = (row for row in self._old() if row.file not in replaced)
        with replacing(self._path) as new:
            self._write(new, chain(old, chain.from_iterable(self._journalled())))
        self._journal.truncate(0)

    def _old(self) -> Iterator[Row]:
        """The table's rows before this run."""
        try:
            if self._path.exists() and self._path.stat().st_size:
                yield from self._read(self._path)
        except (OSError, ValueError) as error:
            raise TableFailed(f"{self._path}: {reason_of(error)}") from error

    def _journalled(self) -> Iterator[list[Row]]:
        """The journal's pictures; the last line of a killed run may be torn."""
        if not self._journal_path.exists():
            return
        with self._journal_path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield [Row(*fields) for fields in json.loads(line)]


class CsvTable(TableFile):
    """CSV (RFC 4180, UTF-8)."""

    def _read(self, path: Path) -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            try:
                if tuple(next(lines, ())) != Row._fields:
                    raise ValueError
                for file_, name, name_zh, score, number, known in lines:
                    yield Row(
                        file_,
                        name or None,
                        name_zh if name else None,
                        float(score) if score else None,
                        int(number) if number else None,
                        _TRUTH[known],
                    )
            except (ValueError, KeyError, csv.Error) as error:
                raise ValueError(ANOTHER) from error

    def _write(self, path: Path, rows: Iterable[Row]) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(Row._fields)
            for row in rows:
                known = "" if row.known is None else str(row.known).lower()
                lines.writerow([*row[:-1], known])


class ParquetTable(TableFile):
    """Parquet, by pyarrow.

    Made in the main thread: pyarrow crashes later if a thread that has ended imported it (seen with
    25.0). Raises TableFailed without pyarrow.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            message = f"--parquet needs pyarrow: {installing('parquet')}"
            raise TableFailed(message) from error
        except ImportError as error:  # of another numpy's
            raise TableFailed(f"--parquet: {error}") from error
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema(
            [
                pyarrow.field("file", pyarrow.string(), nullable=False),
                ("name", pyarrow.string()),
                ("name_zh", pyarrow.string()),
                ("score", pyarrow.float64()),
                ("id", pyarrow.int32()),
                ("known", pyarrow.bool_()),
            ]
        )

    def _read(self, path: Path) -> Iterator[Row]:
        try:
            with self._pyarrow.parquet.ParquetFile(path) as table:
                if table.schema_arrow != self._schema:
                    raise ValueError
                for batch in table.iter_batches(GROUP):
                    yield from map(Row, *(column.to_pylist() for column in batch.columns))
        except (self._pyarrow.ArrowException, ValueError) as error:
            raise ValueError(ANOTHER) from error

    def _write(self, path: Path, rows: Iterable[Row]) -> None:
        rows, schema = iter(rows), self._schema
        with self._pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while group := list(islice(rows, GROUP)):
                columns = dict(zip(Row._fields, zip(*group, strict=True), strict=True))
                writer.write_table(self._pyarrow.table(columns, schema=schema))
