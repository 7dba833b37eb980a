"""The GPU that this process uses, as NVIDIA's driver names it."""

import ctypes
from dataclasses import dataclass

from ram_triton.errors import MachineError

LIBRARY = "libcuda.so.1"
NAME_LENGTH = 256
# Of CUdevice_attribute in cuda.h.
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Device:
    """A GPU: its name, such as `NVIDIA H100 80GB HBM3`, and compute capability, such as `9.0`."""

    name: str
    compute_capability: str


def first_device() -> Device:
    """Return the first GPU in CUDA's own order, which CUDA_VISIBLE_DEVICES may change.

    Raises:
        MachineError: no driver, or no GPU.
    """
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise MachineError("no NVIDIA driver here: run this where the GPU is") from error
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_LENGTH)
    version = ctypes.c_int(), ctypes.c_int()
    calls = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, NAME_LENGTH, device),
        lambda: cuda.cuDeviceGetAttribute(
            ctypes.byref(version[0]), COMPUTE_CAPABILITY_MAJOR, device
        ),
        lambda: cuda.cuDeviceGetAttribute(
            ctypes.byref(version[1]), COMPUTE_CAPABILITY_MINOR, device
        ),
    )
    for call in calls:
        if status := call():
            raise MachineError(f"the NVIDIA driver finds no GPU (CUDA error {status})")
    return Device(name.value.decode(), f"{version[0].value}.{version[1].value}")
