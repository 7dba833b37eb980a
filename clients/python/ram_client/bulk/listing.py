"""What is to be tagged: written once, at the first run, and read by the runs that go on.

A SQLite file, so that memory does not depend on the number of images. Images in files are one unit
together; each webdataset shard or parquet file is a unit of its own, read from its beginning.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..files import IMAGE_SUFFIXES, STDIN
from .errors import BulkError, ending_run
from .item import Item
from .places import (
    absolute,
    exists,
    expand,
    is_folder,
    open_binary,
    path_of,
    suffix_of,
    version_of,
    walk,
)
from .shards import ImageColumns, check_parquet

FILES, TAR, PARQUET = "files", "tar", "parquet"
LISTS = {".txt", ".lst"}
SHARDS = {".tar": TAR, ".tar.gz": TAR, ".tgz": TAR, ".parquet": PARQUET}
SCHEMA = """
CREATE TABLE file (number INTEGER PRIMARY KEY, source INTEGER, key TEXT, place BLOB UNIQUE);
CREATE TABLE source (number INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE unit (number INTEGER PRIMARY KEY, kind TEXT, place BLOB UNIQUE, source TEXT,
                   version TEXT, count INTEGER);
CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER);
"""


@dataclass(frozen=True)
class Unit:
    """A run of images that is read in one go; `count` is None until a shard was read to its end."""

    number: int
    kind: str
    place: str
    source: str
    version: str
    count: int | None

    def check(self) -> None:
        """Raise BulkError if its file is another than when it was listed."""
        if self.kind != FILES and version_of(self.place) != self.version:
            raise BulkError(
                f"{self.place} has changed since the first run, so its parts would not fit "
                "together: use another folder, or --restart"
            )


def readable(name: str) -> str:
    """A file's name as valid text, with escapes for the bytes that are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def kind_of_shard(place: str) -> str | None:
    """TAR or PARQUET, by a place's suffix; None for anything else."""
    name = path_of(place).lower()
    return next((kind for suffix, kind in SHARDS.items() if name.endswith(suffix)), None)


class Listing:
    """A listing on disk, to be read from any thread, one at a time."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}?immutable=1", uri=True, check_same_thread=False
        )
        self._sources = dict(self._database.execute("SELECT number, name FROM source"))
        query = "SELECT value FROM fact WHERE name = 'duplicates'"
        ((self.duplicates,),) = self._database.execute(query)

    def units(self) -> list[Unit]:
        """All units; that of the files, if there are any, is the first."""
        rows = self._database.execute(
            "SELECT number, kind, place, source, version, count FROM unit ORDER BY number"
        )
        return [
            Unit(number, kind, os.fsdecode(place), *rest) for number, kind, place, *rest in rows
        ]

    def files(self, start: int, stop: int) -> Iterator[Item]:
        """The images in files of their own, from one position to before another."""
        query = "SELECT number, key, source, place FROM file WHERE number >= ? AND number < ?"
        for number, key, source, place in self._database.execute(query, (start, stop)):
            yield Item(number, key, self._sources[source], place=os.fsdecode(place))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def write_listing(path: Path, sources: list[str], columns: ImageColumns) -> None:
    """Write the listing of some sources: folders, lists, shards, single images; `-` is stdin.

    It appears at `path` when it is complete. Raises BulkError for a source that cannot be listed,
    and if there is nothing to tag.
    """
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    database = sqlite3.connect(unfinished)
    with closing(database), ending_run(path, sqlite3.Error):  # a full disk, for one
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)
        _Writer(database, columns).add_all(sources)
        database.commit()
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(path)


class _Writer:
    def __init__(self, database: sqlite3.Connection, columns: ImageColumns):
        self._database = database
        self._columns = columns
        self._files = self._duplicates = 0

    def add_all(self, sources: list[str]) -> None:
        # The unit of the files is the first, its count is known at the end.
        self._database.execute("INSERT INTO unit VALUES (0, ?, '', '', '', 0)", (FILES,))
        for number, source in enumerate(sources):
            self._database.execute("INSERT INTO source VALUES (?, ?)", (number, readable(source)))
            self._add(number, source)
        self._database.execute("INSERT INTO fact VALUES ('duplicates', ?)", (self._duplicates,))
        if self._files:
            self._database.execute("UPDATE unit SET count = ? WHERE number = 0", (self._files,))
        else:
            self._database.execute("DELETE FROM unit WHERE number = 0")
        if not self._database.execute("SELECT 1 FROM unit").fetchone():
            raise BulkError(f"{', '.join(sources)}: nothing to tag")

    def _add(self, number: int, source: str) -> None:
        if source == STDIN or suffix_of(source) in LISTS:
            for line in _lines(source):
                if kind_of_shard(line):
                    self._add_shard(line)
                else:
                    self._add_file(number, line, line)
            return
        for place in expand(source):
            if kind_of_shard(place):
                self._add_shard(place)
            elif is_folder(place):
                self._add_folder(number, place)
            elif exists(place):
                self._add_file(number, place, place)
            else:
                raise BulkError(f"{place}: No such file or directory")

    def _add_folder(self, number: int, folder: str) -> None:
        """Add a folder's images or, if there are none, its shards."""
        before, shards = self._files + self._duplicates, 0
        for key, place in walk(folder):
            if suffix_of(place) in IMAGE_SUFFIXES:
                self._add_file(number, key, place)
            shards += kind_of_shard(place) is not None
        if self._files + self._duplicates > before:
            return
        if not shards:
            raise BulkError(f"{folder}: no images in this folder, and no .tar or .parquet")
        for _, place in walk(folder):
            if kind_of_shard(place):
                self._add_shard(place)

    def _add_file(self, source: int, key: str, place: str) -> None:
        row = (self._files, source, readable(key), os.fsencode(absolute(place)))
        done = self._database.execute("INSERT OR IGNORE INTO file VALUES (?, ?, ?, ?)", row)
        if done.rowcount == 1:
            self._files += 1
        else:
            self._duplicates += 1

    def _add_shard(self, place: str) -> None:
        kind = kind_of_shard(place)
        where = absolute(place)
        version = version_of(where)
        count = check_parquet(where, self._columns) if kind == PARQUET else None
        row = (kind, os.fsencode(where), readable(place), version, count)
        self._database.execute(
            "INSERT OR IGNORE INTO unit (kind, place, source, version, count) "
            "VALUES (?, ?, ?, ?, ?)",
            row,
        )


def _lines(source: str) -> Iterator[str]:
    """The lines of a list, or of stdin."""
    with (
        ending_run(source, OSError),
        sys.stdin.buffer if source == STDIN else open_binary(source) as lines,
    ):
        for line in lines:
            if text := line.rstrip(b"\r\n"):
                yield os.fsdecode(text)
