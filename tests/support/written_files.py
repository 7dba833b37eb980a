"""What the command line has written."""

import csv
import sqlite3


def read_table(path):
    """The rows of a table: file, English and Chinese name."""
    if path.suffix == ".csv":
        rows = csv.DictReader(path.open(encoding="utf-8", newline=""))
        return [(row["file"], row["name"], row["name_zh"]) for row in rows]
    if path.suffix == ".parquet":
        from pyarrow import parquet

        columns = parquet.read_table(path).select(["file", "name", "name_zh"]).to_pylist()
        return [tuple(name or "" for name in row.values()) for row in columns]
    query = (
        "SELECT path, coalesce(tags.name, ''), coalesce(name_zh, '')"
        " FROM files LEFT JOIN tags ON file_id = id ORDER BY id, place"
    )
    with sqlite3.connect(path) as database:
        return database.execute(query).fetchall()


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
