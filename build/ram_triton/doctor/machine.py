"""What this machine has: GPUs, TensorRT, shared memory."""

import ctypes
import importlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ram_triton.errors import MachineError

SHARED_MEMORY = Path("/dev/shm")
MIB = 2**20
QUERY = ("index", "name", "compute_cap", "memory.total", "memory.free")
# Python packages that hold TensorRT, the serving image's first. `tensorrt_bindings` is the part
# that takes its libraries from the system.
TENSORRT_MODULES = ("tensorrt", "tensorrt_bindings")
TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        index: as CUDA and `instance_group` count them.
        name: such as `NVIDIA H100 80GB HBM3`.
        compute_capability: such as `9.0`.
        total: bytes of its memory; None where the driver does not say.
        free: bytes that no process holds; None likewise.
    """

    index: int
    name: str
    compute_capability: str
    total: int | None
    free: int | None


def read_gpus() -> list[Gpu]:
    """Ask the driver for this machine's GPUs; none where it has no driver.

    Raises:
        MachineError: there is a driver, and it fails.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stdout + done.stderr).split())
        raise MachineError(f"nvidia-smi failed: {reason or f'status {done.returncode}'}")
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> list[Gpu]:
    """Read what `nvidia-smi --query-gpu=… --format=csv` prints, with its header.

    Raises:
        MachineError: it is something else, such as a message.
    """
    header, *lines = text.strip().splitlines() or [""]
    names = [name.split(" [")[0].strip() for name in header.split(",")]
    if names != list(QUERY):
        raise MachineError(f"nvidia-smi said: {' '.join(text.split()) or 'nothing'}")
    return [_parse_gpu(line) for line in lines]


def _parse_gpu(line: str) -> Gpu:
    index, name, compute_capability, total, free = (part.strip() for part in line.split(","))
    return Gpu(int(index), name, compute_capability, _parse_memory(total), _parse_memory(free))


def _parse_memory(text: str) -> int | None:
    """Bytes of `81559 MiB`; None of `[N/A]`, `[Insufficient Permissions]` and their like."""
    number, _, unit = text.partition(" ")
    return int(number) * MIB if number.isdigit() and unit == "MiB" else None


def tensorrt_version() -> str | None:
    """Version of the TensorRT at hand: all of it from Python, else as far as its library tells."""
    for name in TENSORRT_MODULES:
        try:
            return importlib.import_module(name).__version__
        except (ImportError, OSError, AttributeError):
            continue
    for name in TENSORRT_LIBRARIES:
        try:
            number = ctypes.CDLL(name).getInferLibVersion()
        except (OSError, AttributeError):
            continue
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def shared_memory() -> tuple[int, int] | None:
    """Total and free bytes of the shared memory's file system, or None where there is none."""
    if not SHARED_MEMORY.is_dir():
        return None
    usage = shutil.disk_usage(SHARED_MEMORY)
    return usage.total, usage.free
