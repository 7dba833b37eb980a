"""Where a training run stands, in a file that is whole whenever it is looked at."""

from pathlib import Path
from typing import Any

import torch

from ram_triton.errors import StateError
from ram_triton.files import write_atomically

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
