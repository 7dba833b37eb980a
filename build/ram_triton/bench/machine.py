"""What a figure was measured on: processor, GPU, versions, memory."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from ram_triton.bench.device import Device
from ram_triton.server import TritonServer

PACKAGES = ("torch", "openvino", "tritonclient", "pillow", "numpy")


def processor() -> str:
    """Name of this machine's processor, as far as the system tells."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine(triton: str, device: Device) -> dict[str, object]:
    """Return processor, GPU (if it was used) and versions by name, for JSON.

    Args:
        triton: the server's version.
        device: what everything was computed on.
    """
    flags = Path("/proc/cpuinfo").read_text()
    gpu = torch.cuda.get_device_name() if device.name == "cuda" else None
    return {
        "processor": processor(),
        "cores": cores(),
        "instructions": [
            name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name} " in flags
        ],
        "gpu": gpu,
        "gpu_unused": device.unused,
        "versions": {"python": platform.python_version(), "tritonserver": triton}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def peak_memory(server: TritonServer) -> int:
    """Sum of the peak resident bytes of the server and its Python models."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == server.process_group:
                total += resident_peak(int(folder.name))
        except (ProcessLookupError, FileNotFoundError):  # it has ended since it was listed
            continue
    return total


def resident_peak(process: int) -> int:
    """Peak resident bytes of a process that is running.

    Raises:
        ProcessLookupError, FileNotFoundError: it has ended.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {process} has ended")  # and is waited for
