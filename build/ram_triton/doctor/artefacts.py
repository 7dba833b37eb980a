"""Artefacts: all there, and byte for byte what the build wrote."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ram_triton.doctor.finding import Finding, error, fine
from ram_triton.doctor.repository_view import Inspected, mebibytes, read_json
from ram_triton.repository.layout import MANIFEST

SUBJECT = "artefacts"
REBUILD = "run 'make model' again, or copy the file again from where it was built"
BLOCK = 2**22  # bytes

Advance = Callable[[int], None]


def check_artefacts(repository: Inspected, advance: Advance) -> Iterator[Finding]:
    """Compare every file that the manifest names with its hash.

    Args:
        repository: what to look at.
        advance: called with each number of bytes that was read.
    """
    manifest = repository.root / MANIFEST
    artefacts = repository.artefacts
    if not artefacts:
        if not manifest.exists():
            text = f"no model is installed, or its build was interrupted: {MANIFEST} is missing"
        elif not isinstance(read_json(manifest), dict):
            text = f"{MANIFEST} is damaged"
        else:
            text = f"{MANIFEST} names no artefacts"
        yield error(SUBJECT, text, "run 'make model', or 'make demo' for a toy")
        return
    found = []
    for name, expected in artefacts.items():
        path = repository.root / name
        if not path.is_file():
            found.append(error(SUBJECT, f"{name} is missing", REBUILD))
        elif sha256(path, advance) != expected:
            found.append(error(SUBJECT, f"{name} is not what was built (SHA-256 differs)", REBUILD))
    size = sum(artefact_sizes(repository))
    yield from found or [
        fine(SUBJECT, f"{len(artefacts)} files, {mebibytes(size)}, match the manifest")
    ]
    for model in repository.models:
        if not (repository.root / model / "1").is_dir():
            yield error(
                SUBJECT,
                f"{model}/1 is missing",
                f"create it, empty for the ensemble: mkdir {model}/1",
            )


def artefact_sizes(repository: Inspected) -> list[int]:
    """Return the bytes of each artefact that is there."""
    paths = [repository.root / name for name in repository.artefacts]
    return [path.stat().st_size for path in paths if path.is_file()]


def sha256(path: Path, advance: Advance = lambda count: None) -> str:
    """Return a file's SHA-256 in hexadecimal digits, and report each block that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
