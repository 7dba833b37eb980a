"""Where a training run stands, in a file that is whole whenever it is looked at."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FILE = "state.pth"


class StateError(ValueError):
    """The saved state can't be gone on from; the message says why, in one line."""


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Write the state; whoever is killed meanwhile leaves the one before."""
    write_atomically(folder / FILE, lambda path: torch.save(state, path))


def load_state(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read the state, if there is one.

    Args:
        folder: the run's output.
        fingerprint: of what the run is made of.

    Raises:
        StateError: the state is that of another run, or no state.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["fingerprint"]
    except Exception as error:  # torch's unpickler raises nearly anything on other files
        raise StateError(
            f"{path}: is no state of a training run ({type(error).__name__})"
        ) from error
    if found != fingerprint:
        raise StateError(
            f"{path}: is of a run with another configuration, data or vocabulary; "
            "give another output folder, or start anew with --restart"
        )
    return state


def make_folder(folder: Path) -> None:
    """Make a folder, so that what can't be written there is known before the work.

    Raises:
        OSError: it can't be made, or not be written into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, make sure that it is on the disk, and move it there.

    Args:
        path: where it goes.
        write: writes it to the path that it is given, which has the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
