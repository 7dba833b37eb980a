"""The GPUs of this machine: which are visible, what NVML reports, and one line if it fails."""

from types import SimpleNamespace

import pynvml
import pytest
from ram_triton import gpus
from ram_triton.errors import MachineError
from ram_triton.gpus import Gpu, visible

UUIDS = ["GPU-8932f937-d72c", "GPU-89ab0000-aaaa", "GPU-77000000-bbbb"]


@pytest.mark.parametrize(
    ("setting", "positions"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-8932f937", [0]),
        ("GPU-77,1", [2, 1]),
        ("0,-1,1", [0]),
        ("1,9,2", [1]),
        ("GPU-89", []),  # could be two
        ("NoDevFiles", []),
    ],
)
def test_the_environment_chooses_and_orders_the_gpus_as_in_cuda(setting, positions):
    assert visible(UUIDS, setting) == positions


@pytest.fixture
def nvml(monkeypatch):
    """A driver with an H100 and a GPU that does not report its memory."""
    names = ["NVIDIA H100 80GB HBM3", "NVIDIA GB10"]

    def memory(index):
        if index:
            raise pynvml.NVMLError_NotSupported()
        return SimpleNamespace(total=80 * 2**30, free=79 * 2**30)

    calls = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": UUIDS.__getitem__,
        "nvmlDeviceGetName": names.__getitem__,
        "nvmlDeviceGetCudaComputeCapability": [(9, 0), (12, 1)].__getitem__,
        "nvmlDeviceGetMemoryInfo": memory,
    }
    for name, call in calls.items():
        monkeypatch.setattr(pynvml, name, call)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)


H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", 80 * 2**30, 79 * 2**30)
GB10 = Gpu(1, "NVIDIA GB10", "12.1", None, None)


def test_name_capability_and_memory_are_read(nvml):
    assert gpus.gpus() == [H100, GB10]


def test_gpus_are_numbered_as_cuda_numbers_the_visible_ones(nvml, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "1")
    assert gpus.gpus() == [Gpu(0, GB10.name, "12.1", None, None)]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert gpus.first_gpu().name == GB10.name
    assert gpus.os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv(gpus.VISIBLE, "")
    with pytest.raises(MachineError, match="no NVIDIA driver or GPU found"):
        gpus.first_gpu()


@pytest.mark.parametrize(
    "error", [pynvml.NVMLError_LibRmVersionMismatch, pynvml.NVMLError_DriverNotLoaded]
)
def test_a_driver_that_fails_is_one_line(monkeypatch, error):
    def fail():
        raise error()

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(MachineError, match=f"the NVIDIA driver fails: {error()}$"):
        gpus.gpus()


def test_without_a_driver_there_are_none(monkeypatch):
    def fail():
        raise pynvml.NVMLError_LibraryNotFound()

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert gpus.gpus() == []


@pytest.mark.gpu
def test_this_machines_gpus_are_read():
    found = gpus.gpus()
    if not found:
        pytest.skip("no NVIDIA driver on this machine")
    assert all(gpu.name.startswith(("NVIDIA", "Tesla")) for gpu in found)
