"""Files: written whole or not at all, hashed, and read with errors that name the line."""

import codecs
import glob
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ram_triton.errors import FileError

# Of the formats that the server takes; the Python client, which is installed alone, has the same.
IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
BLOCK = 2**20  # bytes that are hashed at once


def write_atomically(path: Path, contents: str | Callable[[Path], object]) -> None:
    """Write a file beside its place, make sure that it is on the disk, and move it there.

    Whoever reads `path` meanwhile, or after a crash, finds the former file or the new one, whole.

    Args:
        path: the file; its folder is made.
        contents: the text, which is written in UTF-8; or a function that writes the file to the
            path that it is given, which has the same suffix.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # by the umask; safetensors would make it the owner's only
        if isinstance(contents, str):
            unfinished.write_text(contents, encoding="utf-8")
        else:
            contents(unfinished)
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def require_writable_folder(folder: Path) -> None:
    """Make a folder and check that files can be written there, before any long work.

    Raises:
        FileError: they cannot.
    """
    _require_writable(folder, folder)


def require_writable_file(path: Path) -> None:
    """Make a file's folder and check that the file can be written there, before any long work.

    Raises:
        FileError: it cannot.
    """
    if path.is_dir():
        raise FileError(f"{path}: cannot be written (Is a directory)")
    _require_writable(path.parent, path)


def require_file(path: Path) -> None:
    """Check that a file can be read, before any long work or import.

    Raises:
        FileError: it cannot.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file, with or without a byte order mark.

    Returns:
        The lines without their ends; white space inside them is kept.

    Raises:
        FileError: a line is not UTF-8.
        OSError: the file cannot be read.
    """
    # Of bytes, so that only \n, \r and \r\n end a line, as in an editor.
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise FileError(f"{path}, line {number}: is not UTF-8 ({error.reason})") from error
    return texts


def short(path: Path) -> str:
    """Return a path to show: as seen from the current folder if it lies below it."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def sha256(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """Return a file's SHA-256 in hexadecimal digits.

    Args:
        path: the file.
        progress: called after each block with the number of its bytes.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def _require_writable(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise FileError(f"{path}: cannot be written (Not a directory)") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror})") from error


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of this file."""
    for unfinished in path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        process = unfinished.name.removeprefix(f".{path.stem}.").removesuffix(path.suffix)
        if process.isdigit() and not _is_running(int(process)):
            unfinished.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True
