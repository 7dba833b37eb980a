"""Where a training run stands, in a file that is whole whenever it is looked at."""

import errno
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ram_triton.errors import StateError

# What a run writes into its output folder: its state, the trained model, TensorBoard's events.
FILE = "state.pth"
MODEL = "ram.safetensors"
METRICS = "metrics"


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
            "give another output folder, or start anew with RESTART=1 (train.py --restart)"
        )
    return state


def make_folder(folder: Path) -> None:
    """Make a folder, so that what cannot be written there is known before the work.

    Raises:
        OSError: it cannot be made, or not be written into.
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
    _remove_abandoned(path)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # the umask's; safetensors would give the owner's alone
        write(unfinished)
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of this file."""
    for unfinished in path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        process = unfinished.name.removeprefix(f".{path.stem}.").removesuffix(path.suffix)
        if process.isdigit() and not _runs(int(process)):
            unfinished.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
