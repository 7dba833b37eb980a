"""An SQLite database: tables `files` and `tags`, and the view `file_tags` of both."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import Source
from ..tag import Tag
from .sink import Sink, TableFailed, text_of
from .tables import rows_of

APPLICATION = 0x52414D54  # "RAMT", in the file's header: a database of this command
COMMIT_SECONDS = 1.0
BUSY_SECONDS = 10.0

SCHEMA = f"""
BEGIN;
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    tagged_at TEXT NOT NULL -- UTC
);
CREATE TABLE tags (
    file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    place INTEGER NOT NULL, -- 0 is the best
    name TEXT NOT NULL,
    name_zh TEXT NOT NULL,
    score REAL NOT NULL,
    tag_id INTEGER NOT NULL,
    known INTEGER NOT NULL,
    PRIMARY KEY (file_id, place)
) WITHOUT ROWID;
CREATE INDEX tags_by_name ON tags (name, score);
CREATE VIEW file_tags AS
    SELECT path, name, name_zh, score, tag_id, known
    FROM files JOIN tags ON tags.file_id = files.id
    ORDER BY files.id, place;
PRAGMA application_id = {APPLICATION};
COMMIT;
"""


class Database(Sink):
    """Replaces a picture's tags, and leaves the others'; a kill loses a second's work at most."""

    def __init__(self, path: Path):
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._committed = time.monotonic()

    def open(self) -> None:
        """Connect, and create the tables in a new file."""
        with self._explained():
            self._connect("rwc")

    def has(self, source: Source) -> bool:
        """Whether the picture is in the database."""
        if self._database is None and not self._path.exists():
            return False
        with self._explained():
            if self._database is None:  # of a dry run
                self._connect("ro")
            assert self._database
            query = "SELECT 1 FROM files WHERE path = ?"
            return self._database.execute(query, [text_of(source)]).fetchone() is not None

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Replace the picture's tags, within the transaction of this second."""
        assert self._database
        with self._explained():
            ((file_id,),) = self._database.execute(
                "INSERT INTO files (path, tagged_at)"
                " VALUES (?, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"
                " ON CONFLICT (path) DO UPDATE SET tagged_at = excluded.tagged_at RETURNING id",
                [text_of(source)],
            ).fetchall()
            self._database.execute("DELETE FROM tags WHERE file_id = ?", [file_id])
            self._database.executemany(
                "INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (file_id, place, *row[1:])
                    for place, row in enumerate(rows_of(source, tags))
                    if row.name is not None
                ],
            )
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._database.commit()
                self._committed = time.monotonic()

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """The database, the picture, and its tags."""
        return f"{self._path}: {source}: {', '.join(tag.name for tag in tags) or 'no tags'}"

    def close(self) -> None:
        """Commit the rest."""
        if self._database:
            with self._explained():
                self._database.commit()
            self._database.close()

    def _connect(self, mode: str) -> None:
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        self._database = sqlite3.connect(address, timeout=BUSY_SECONDS, uri=True)
        self._database.execute("PRAGMA foreign_keys = ON")
        (found,) = self._database.execute("PRAGMA application_id").fetchone()
        if found == APPLICATION:
            return
        (objects,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if objects or found:
            raise TableFailed(f"{self._path}: is another program's database, and was left as it is")
        if mode == "rwc":
            self._database.executescript(SCHEMA)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise TableFailed(f"{self._path}: {error}") from error
