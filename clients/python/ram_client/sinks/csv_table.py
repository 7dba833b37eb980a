"""CSV (RFC 4180, UTF-8), a row per tag."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from .tables import Row

_TRUTH = {"": None, "true": True, "false": False}


class Csv:
    """The format of `--csv`."""

    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows; ValueError if the columns are others."""
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
                raise ValueError("is another table, and was left as it is") from error

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write a header and the rows."""
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(Row._fields)
            for row in rows:
                known = "" if row.known is None else str(row.known).lower()
                lines.writerow([*row[:-1], known])
