"""Where images and shards are: local paths, and the addresses that fsspec reads (s3, gs, https)."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from ..errors import ImageUnreadable, reason_of
from ..files import ADDRESS
from ..image import encode
from .errors import BulkError, ending_run, extra_needed

READ_ATTEMPTS = 3  # of an address: networks fail for a moment
FIRST_PAUSE = 0.5  # seconds, then twice as long each time
# What identifies the version of a file, as the file systems of fsspec name it.
VERSIONS = ("size", "ETag", "etag", "LastModified", "updated", "mtime")


def is_address(place: str) -> bool:
    """Whether a place is for fsspec, and not a local path."""
    return bool(ADDRESS.match(place))


def path_of(place: str) -> str:
    """The path of a place; an address may have a query behind it."""
    return urlsplit(place).path if is_address(place) else place


def suffix_of(place: str) -> str:
    """The suffix of a place in lower case, `.jpg` for one."""
    return Path(path_of(place)).suffix.lower()


def absolute(place: str) -> str:
    """The place as it is found from any folder."""
    return place if is_address(place) else os.path.abspath(place)  # noqa: PTH100  # keeps links


def join(folder: str, name: str) -> str:
    """The place that a name means to a file in a folder."""
    if is_address(name) or name.startswith("/"):
        return name
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else str(Path(folder) / name)


def file_system(place: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it.

    Raises BulkError if fsspec, or its package for this kind of address, is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise extra_needed(place, "fsspec") from error
    with ending_run(place, ImportError, ValueError):
        return cast(tuple[Any, str], fsspec.core.url_to_fs(place))


def read_image(place: str) -> bytes:
    """Read an encoded image; an address again after a pause, unless it does not exist.

    Raises ImageUnreadable, whose message does not repeat the place.
    """
    if not is_address(place):
        try:
            return encode(place)
        except ImageUnreadable as error:
            raise ImageUnreadable(str(error).removeprefix(f"{place}: ")) from error
    for attempt in range(READ_ATTEMPTS):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            files, path = file_system(place)
            return cast(bytes, files.cat_file(path))
        except BulkError:
            raise
        except FileNotFoundError as error:
            raise ImageUnreadable("No such file") from error
        except PermissionError as error:
            raise ImageUnreadable(reason_of(error)) from error
        except Exception as error:  # each file system has errors of its own
            failure = error
    raise ImageUnreadable(f"cannot be read: {reason_of(failure)}") from failure


def open_binary(place: str, *, random_access: bool = False) -> BinaryIO:
    """Open a shard to be read, by default from its beginning to its end; raises OSError."""
    if not is_address(place):
        return Path(place).open("rb")
    files, path = file_system(place)
    # By HTTP a block size of 0 is one request for all of it, which servers without ranges take too.
    streamed = {"block_size": 0} if path.startswith("http") and not random_access else {}
    try:
        return cast(BinaryIO, files.open(path, "rb", **streamed))
    except OSError:
        raise
    except Exception as error:
        raise OSError(reason_of(error)) from error


def version_of(place: str) -> str:
    """What changes when the file at a place is written again; raises BulkError if there is none."""
    with ending_run(place, Exception):
        if not is_address(place):
            status = Path(place).stat()
            return f"{status.st_size} {status.st_mtime_ns}"
        files, path = file_system(place)
        try:
            info = files.info(path)
        except FileNotFoundError as error:
            raise BulkError(f"{place}: No such file or directory") from error
    return " ".join(str(info[name]) for name in VERSIONS if info.get(name) is not None)


def is_folder(place: str) -> bool:
    """Whether a place is a folder; by HTTP that is what ends with a slash."""
    if not is_address(place):
        return Path(place).is_dir()
    files, path = file_system(place)
    return place.endswith("/") or (not path.startswith("http") and bool(files.isdir(path)))


def exists(place: str) -> bool:
    """Whether there is a file or folder; True by HTTP, where some servers only tell by sending it.

    Raises BulkError if that cannot be asked.
    """
    if not is_address(place):
        return Path(place).exists()
    files, path = file_system(place)
    with ending_run(place, Exception):
        return path.startswith("http") or bool(files.exists(path))


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Yield each file below a folder: its path in the folder, and its place.

    The order is that of the names, per folder: of a tree of any size one folder is in memory.
    Raises BulkError for a folder that cannot be listed.
    """
    if is_address(folder):
        yield from _walk_address(folder)
        return

    def fail(error: OSError) -> None:
        raise BulkError(f"{error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)  # noqa: PTH118  # a Path per file takes ten times as long
            yield os.path.relpath(path, folder), path


def _walk_address(folder: str) -> Iterator[tuple[str, str]]:
    files, root = file_system(folder)
    root = root.rstrip("/")
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        with ending_run(folder, Exception, problem="cannot be listed: "):
            entries = files.ls(f"{parent}/" if parent.startswith("http") else parent, detail=True)
        below = sorted(
            (entry["name"].rstrip("/"), entry["type"] == "directory")
            for entry in entries
            if entry["name"].startswith(f"{parent}/") and entry["name"].rstrip("/") != parent
        )
        yield from (
            (name.removeprefix(f"{root}/"), str(files.unstrip_protocol(name)))
            for name, is_folder in below
            if not is_folder
        )
        waiting += [name for name, is_folder in reversed(below) if is_folder]


def expand(pattern: str) -> list[str]:
    """The addresses that a pattern with `*` means, sorted; local patterns are the shell's."""
    if not (is_address(pattern) and "*" in pattern):
        return [pattern]
    files, path = file_system(pattern)
    with ending_run(pattern, Exception, problem="cannot be listed: "):
        found = sorted(files.glob(path))
    if not found:
        raise BulkError(f"{pattern}: nothing there has such a name")
    return [str(files.unstrip_protocol(name)) for name in found]
