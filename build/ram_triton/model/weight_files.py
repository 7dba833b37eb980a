"""Which files a checkpoint consists of, and what they are by their first bytes.

Nothing here imports PyTorch, so that a command can refuse a wrong file before it loads anything.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ram_triton.errors import CheckpointError
from ram_triton.files import sha256

SAFETENSORS, TORCH = "safetensors", "torch"
INDEX = ".index.json"  # ends the name of the list of a checkpoint's parts
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin|\.pth?)")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
HEAD = 512  # bytes that are looked at
LONGEST_HEADER = 100_000_000  # bytes; by the format of safetensors
DOWNLOAD = "download the checkpoint again"

# What other files begin with; white space before them and their case do not count.
OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: run 'git lfs pull' there"),
    (b"<!doctype", f"a web page, not a checkpoint: {DOWNLOAD}, perhaps after a login"),
    (b"<html", f"a web page, not a checkpoint: {DOWNLOAD}, perhaps after a login"),
    (b"<?xml", f"an XML document, such as a server's error, not a checkpoint: {DOWNLOAD}"),
    (b"\x1f\x8b", "a gzip archive, not a checkpoint: unpack it"),
    (b"bzh", "a bzip2 archive, not a checkpoint: unpack it"),
    (b"\xfd7zxz", "an xz archive, not a checkpoint: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive, not a checkpoint: unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive, not a checkpoint: unpack it"),
    (b"rar!", "a RAR archive, not a checkpoint: unpack it"),
    (b"gguf", "GGUF, whose weights are quantised: take the PyTorch checkpoint"),
    (b"\x89hdf", "HDF5, not a checkpoint: take the PyTorch checkpoint"),
    (b"\x93numpy", "a NumPy array, not a checkpoint: take the PyTorch checkpoint"),
    (b"{", "JSON, not a checkpoint"),
)


def weight_files(path: Path) -> dict[Path, str]:
    """Find the files of a checkpoint, and the format of each.

    Args:
        path: the file; or a folder with one, or with the parts of one: those that an index lists
            (`model.safetensors.index.json`), or `NAME-00001-of-00002.safetensors` and so on.

    Returns:
        The format of each file, `SAFETENSORS` or `TORCH`. Its name does not matter.

    Raises:
        CheckpointError: a file is missing, cannot be read or is not a checkpoint; the message
            names what it is and what to do.
    """
    if path.is_dir():
        files = _files_of(path)
    elif path.name.endswith(INDEX) and path.is_file():
        files = _listed(path)
    else:
        files = [path]
    return {file: _format(file) for file in files}


def digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint: the file's, or that of its parts' names and hashes.

    Raises:
        CheckpointError, OSError: as `weight_files`, or while reading.
    """
    files = sorted(weight_files(path))
    if files == [path]:
        return sha256(path)
    parts = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(parts.encode()).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror})") from error
    indices = [name for name in names if name.endswith(INDEX)]
    if indices:
        return _listed(folder / indices[-1])  # safetensors before PyTorch's, if there are both
    if any(name.endswith(".distcp") for name in names):
        raise CheckpointError(
            f"{folder}: is a distributed checkpoint: convert it by 'python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} ram.pth'"
        )
    for suffix in WEIGHT_SUFFIXES:
        found = [name for name in names if name.endswith(suffix)]
        parts = [match for match in map(PART.fullmatch, found) if match]
        if parts:
            base, _, count, end = parts[0].groups()
            numbers = range(1, int(count) + 1)
            return [folder / f"{base}-{number:05}-of-{count}{end}" for number in numbers]
        if len(found) == 1:
            return [folder / found[0]]
        if found:
            shown = ", ".join(found[:3])
            raise CheckpointError(f"{folder}: contains several checkpoints ({shown}): name one")
    raise CheckpointError(f"{folder}: the folder contains no checkpoint")


def _listed(index: Path) -> list[Path]:
    """The files that an index lists."""
    try:
        contents: dict[str, Any] = json.loads(index.read_bytes())
        names = set(contents["weight_map"].values())
        if not names or any(Path(name).name != name for name in names):
            raise ValueError
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not an index of a checkpoint's files") from error
    return [index.parent / name for name in sorted(names)]


def _format(path: Path) -> str:
    """The format of a file, by its first bytes."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not size:
        raise CheckpointError(f"{path}: is an empty file: {DOWNLOAD}")
    if not head.strip(b"\0"):
        raise CheckpointError(f"{path}: begins with {len(head)} zeros: {DOWNLOAD}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return SAFETENSORS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, what in OTHER_FILES:
        if text.startswith(start):
            raise CheckpointError(f"{path}: is {what}")
    pickled = head.startswith((b"PK", b"\x80"))
    return SAFETENSORS if path.suffix == ".safetensors" and not pickled else TORCH
