"""The output folder: which parts are done, what they were made with, and who is writing them.

    OUT/part-00000-000012.parquet   images 12,000 to 12,999 of unit 0: there when it is complete
    OUT/_ram_bulk/setup.json        what the parts were made with
    OUT/_ram_bulk/listing.sqlite    what is to be tagged
    OUT/_ram_bulk/ledger.jsonl      the counts of each part, and of shards that were read to the end
    OUT/_ram_bulk/lock              held by the run that writes

A part is written under another name, synced and renamed, so that it is whole or not there at all.
Its line in the ledger is written before: a part that is there has its counts.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import reason_of
from .errors import BulkError, extra_needed
from .listing import Unit

STATE = "_ram_bulk"  # what reads folders of parquet leaves out names with an underscore
NUMBERS = re.compile(r"[0-9]+")
MAX_REASONS = 20  # per part
LONGEST_REASON = 200
OTHERS = "other reasons"


@dataclass
class Counts:
    """How many images there are, how many without tags, and why others failed."""

    images: int = 0
    untagged: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Count another's images too."""
        self.images += other.images
        self.untagged += other.untagged
        for reason, count in other.failed.items():
            self.fail(reason, count)

    def fail(self, reason: str, count: int = 1) -> None:
        """Count a failure; reasons that differ in numbers only are the same."""
        reason = NUMBERS.sub("N", reason)[:LONGEST_REASON]
        if reason not in self.failed and len(self.failed) >= MAX_REASONS:
            reason = OTHERS
        self.failed[reason] += count


class OutputFolder:
    """An output folder, locked by this run until `close`.

    Attributes:
        path: the folder.
        listing: where its listing is or will be.
        setup: what its parts are made with.
    """

    def __init__(self, path: Path, suffix: str, setup: dict[str, Any], *, restart: bool):
        """Open a folder; a new one and its listing are made.

        Args:
            path: of the folder.
            suffix: of its parts, `.parquet` for one.
            setup: JSON; that of an earlier run has to be the same.
            restart: remove what an earlier run wrote.

        Raises BulkError if another run writes there, or did with another setup, and if the folder
        cannot be written.
        """
        self.path, self.suffix, self.setup = path, suffix, setup
        self._state = path / STATE
        self.listing = self._state / "listing.sqlite"
        self._setup_file = self._state / "setup.json"
        self._parts: dict[tuple[int, int], Counts] = {}
        self._lengths: dict[int, int] = {}
        with self.writing():
            self._state.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                self._open(restart)
            except BaseException:
                self._lock.release()
                raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise an OSError of the block as a BulkError, which names the file or the folder."""
        try:
            yield
        except OSError as error:
            raise BulkError(f"{error.filename or self.path}: {reason_of(error)}") from error

    def begin(self, sizes: dict[str, int | None]) -> None:
        """Record the setup, once the listing is there: from now on other setups are refused.

        Raises BulkError if vectors had other sizes before: they are another model's.
        """
        if not self._setup_file.exists():
            self.setup |= {"sizes": sizes}
            with self.writing():
                self._write(self._setup_file, json.dumps(self.setup, ensure_ascii=False, indent=1))
        before = self._read_setup()["sizes"]
        for name, size in sizes.items():
            if before.get(name) != size:
                raise BulkError(
                    f"{self.path} has {name} of {before.get(name)} numbers, but the server returns "
                    f"{size}, so it serves another model: use another folder, or --restart"
                )

    def has(self, unit: int, part: int) -> bool:
        """Whether a part is there."""
        return (unit, part) in self._there

    def length(self, unit: Unit) -> int | None:
        """How many images there are, or None for a shard that was never read to its end."""
        return self._lengths.get(unit.number) if unit.count is None else unit.count

    def unfinished(self, unit: int, part: int) -> Path:
        """Where to write a part."""
        return self._state / f"{_name(unit, part)}{self.suffix}.unfinished"

    def publish(self, unit: int, part: int, counts: Counts) -> None:
        """Give a part that was written and synced its name; raises OSError."""
        record = {"unit": unit, "part": part, "images": counts.images, "untagged": counts.untagged}
        self._append(record | {"failed": counts.failed})
        self.unfinished(unit, part).rename(self.path / f"{_name(unit, part)}{self.suffix}")
        _sync(self.path)
        self._there.add((unit, part))
        self._parts[unit, part] = counts

    def set_length(self, unit: int, length: int) -> None:
        """Record that a shard was read to its end, and its parts published; raises OSError."""
        if unit not in self._lengths:
            self._append({"unit": unit, "length": length})
            self._lengths[unit] = length

    def totals(self) -> Counts:
        """The counts of all parts that are there."""
        totals = Counts()
        for part in [*self._there]:  # a thread may just publish another, after Ctrl-C
            totals.add(self._parts.get(part, Counts()))
        return totals

    def number_of_parts(self) -> int:
        """How many parts are there."""
        return len(self._there)

    def close(self) -> None:
        """Let another run write."""
        self._ledger.close()
        self._lock.release()

    def _open(self, restart: bool) -> None:
        if restart:
            self._clear()
        self._compare()
        for leftover in self._state.glob("*.unfinished"):
            leftover.unlink()
        self._read_ledger()
        self._there = {
            numbers for numbers, path in self._all_parts() if path.name.endswith(self.suffix)
        }

    def _locked(self) -> Any:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise extra_needed(self.path, "filelock") from error
        lock = FileLock(self._state / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BulkError(f"{self.path}: another ram-bulk is writing there") from error
        return lock

    def _clear(self) -> None:
        for _, path in self._all_parts():
            path.unlink()
        for path in self._state.iterdir():
            if path.name != "lock":
                path.unlink() if path.is_file() else shutil.rmtree(path)

    def _compare(self) -> None:
        """Refuse a setup that would not fit to what is there."""
        if not self._setup_file.exists():
            if part := next(iter(self._all_parts()), None):
                raise BulkError(f"{part[1]} is not this run's: use another folder, or --restart")
            self.listing.unlink(missing_ok=True)
            return
        before = self._read_setup()
        for name in sorted({*before, *self.setup} - {"sizes"}):
            if before.get(name) != self.setup.get(name):
                raise BulkError(
                    f"{self.path} was made with {_describe(name, before.get(name))}, not "
                    f"{_describe(name, self.setup.get(name))}: use another folder, or --restart"
                )

    def _read_setup(self) -> dict[str, Any]:
        try:
            setup: dict[str, Any] = json.loads(self._setup_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BulkError(f"{self._setup_file}: is damaged: --restart begins again") from error
        return setup

    def _read_ledger(self) -> None:
        path = self._state / "ledger.jsonl"
        self._ledger = path.open("ab+", buffering=0)
        self._ledger.seek(0)
        content = self._ledger.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._ledger.truncate(len(whole))  # the end may be half a line
        for line in whole.splitlines():
            entry = json.loads(line)
            if "length" in entry:
                self._lengths[entry["unit"]] = entry["length"]
            else:
                counts = Counts(entry["images"], entry["untagged"], Counter(entry["failed"]))
                self._parts[entry["unit"], entry["part"]] = counts

    def _append(self, entry: dict[str, Any]) -> None:
        self._ledger.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        os.fsync(self._ledger.fileno())

    def _all_parts(self) -> Iterator[tuple[tuple[int, int], Path]]:
        for path in self.path.iterdir():
            if found := re.fullmatch(
                r"part-(\d{5,})-(\d{6,})\.(parquet|jsonl|jsonl\.gz|tar)", path.name
            ):
                yield (int(found[1]), int(found[2])), path

    def _write(self, path: Path, text: str) -> None:
        unfinished = path.with_name(f"{path.name}.unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        _sync(path.parent)


def _name(unit: int, part: int) -> str:
    return f"part-{unit:05d}-{part:06d}"


def _describe(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if name == "sources":
        return f"the sources {' '.join(map(str, value or []))}"  # type: ignore[call-overload]
    if value is None or value is False:
        return f"no --{option}"
    return f"--{option}" if value is True else f"--{option} {value}"


def _sync(folder: Path) -> None:
    """Have a folder's names survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
