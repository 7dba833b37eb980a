"""The NVIDIA GPUs that this process may use, by NVML (nvidia-ml-py)."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pynvml

from ram_triton.errors import MachineError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        index: its number in CUDA and in a config's `instance_group`, in the order of PCI buses.
        name: such as `NVIDIA H100 80GB HBM3`.
        compute_capability: such as `9.0`.
        total: bytes of its memory; None if the driver does not report them.
        free: bytes that no process uses; None likewise.
    """

    index: int
    name: str
    compute_capability: str
    total: int | None
    free: int | None


def gpus() -> list[Gpu]:
    """Return the GPUs, without those that CUDA_VISIBLE_DEVICES hides; none without a driver.

    Raises:
        MachineError: there is a driver, and it fails.
    """
    try:
        with contextlib.ExitStack() as stack:
            pynvml.nvmlInit()
            stack.callback(pynvml.nvmlShutdown)
            indices = range(pynvml.nvmlDeviceGetCount())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
            uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
            chosen = visible(uuids, os.environ.get(VISIBLE))
            return [_read(index, handles[position]) for index, position in enumerate(chosen)]
    except pynvml.NVMLError_LibraryNotFound:
        return []
    except pynvml.NVMLError as error:
        raise MachineError(f"the NVIDIA driver fails: {error}") from error


def first_gpu() -> Gpu:
    """Return the GPU that CUDA uses if nothing else is chosen.

    CUDA would put the fastest first; from here on this process numbers GPUs as NVML does.

    Raises:
        MachineError: there is none, or the driver fails.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    found = gpus()
    if not found:
        raise MachineError("no NVIDIA driver or GPU found: run this where the GPU is")
    return found[0]


def visible(uuids: Sequence[str], setting: str | None) -> list[int]:
    """Return the positions of the GPUs that a CUDA_VISIBLE_DEVICES leaves, in its order.

    Args:
        uuids: of all GPUs, such as `GPU-8932f937-…`.
        setting: numbers or beginnings of UUIDs between commas; None if the variable is not set.
            As in CUDA, the first that names no GPU ends the list.
    """
    if setting is None:
        return list(range(len(uuids)))
    positions: list[int] = []
    for name in filter(None, map(str.strip, setting.split(","))):
        if name.isdecimal():
            matches = [int(name)] if int(name) < len(uuids) else []
        else:
            matches = [position for position, uuid in enumerate(uuids) if uuid.startswith(name)]
        if len(matches) != 1:
            break
        positions += matches
    return positions


def _read(index: int, handle: object) -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    total = free = None
    # GPUs that share the computer's memory have none of their own to report.
    with contextlib.suppress(pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    return Gpu(index, pynvml.nvmlDeviceGetName(handle), f"{major}.{minor}", total, free)
