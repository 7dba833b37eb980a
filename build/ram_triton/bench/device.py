"""Where everything is computed: the ratios hold only if all of it is on the same device."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ram_triton.repository.layout import ENCODER, HEAD, PLAN


@dataclass(frozen=True)
class Device:
    """What PyTorch, engine, server and matrix product compute on.

    Attributes:
        name: PyTorch's: `cuda` or `cpu`.
        unused: why a GPU that is here is not used; empty where there is nothing to say.
    """

    name: str
    unused: str = ""

    @classmethod
    def choose(cls, repository: Path, server: str | None) -> "Device":
        """Take the GPU if it is there for all.

        Args:
            repository: the model repository.
            server: address of one that was started elsewhere; one started here is on the CPU.
        """
        if not torch.cuda.is_available():
            return cls("cpu")
        if not server:
            return cls("cpu", "the server started here is on the CPU, SERVER=host:8001 gives one")
        for graph in (ENCODER, HEAD):
            if not (repository / graph.with_name(PLAN)).is_file():
                return cls("cpu", f"{repository} lacks plans, which 'make plans' makes")
        return cls("cuda")
