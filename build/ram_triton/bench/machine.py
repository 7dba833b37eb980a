"""What is measured on: processor, GPU, versions, memory, and the machine's own matrix product."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import torch
from openvino import opset13
from torch.utils.flop_counter import FlopCounterMode

from ram_triton.engines.openvino import HINTS, PRECISION, compile_for_cpu
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant
from ram_triton.processes import resident_peak, tree
from ram_triton.repository.layout import ENCODER, HEAD, PLAN
from ram_triton.server import TritonServer

PACKAGES = ("torch", "openvino", "tritonclient", "pillow", "numpy")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# Products as the encoder has them: rows are tokens of a batch. A chain of them, whose result is
# averaged to a row: what is timed is the multiplying, not the reading and writing of matrices.
ROWS, WIDTH, LINKS = 4608, 1536, 4
INT8 = "INT8"
# INT8 has 255 levels from -4 to 4 deviations.
LARGEST, LEVELS = 4.0, 255


@dataclass(frozen=True)
class Device:
    """What PyTorch, engine, server and matrix product compute on: all on the same, for ratios.

    Attributes:
        name: PyTorch's: `cuda` or `cpu`.
        unused: why a GPU that is here is not used; empty if there is none.
    """

    name: str
    unused: str = ""

    @classmethod
    def choose(cls, repository: Path, server: str | None) -> "Device":
        """Take the GPU if all of them can use it.

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


def processor() -> str:
    """Return the name of this machine's processor, as the system reports it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine(triton: str, device: Device) -> dict[str, object]:
    """Return processor, GPU (if it was used) and versions by name, for JSON.

    Args:
        triton: the server's version.
        device: what everything was computed on.
    """
    flags = Path("/proc/cpuinfo").read_text()
    return {
        "processor": processor(),
        "cores": cores(),
        "instructions": [name for name in INSTRUCTIONS if f" {name} " in flags],
        "gpu": torch.cuda.get_device_name() if device.name == "cuda" else None,
        "gpu_unused": device.unused,
        "versions": {"python": platform.python_version(), "tritonserver": triton}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def peak_memory(server: TritonServer) -> int:
    """Return the sum of the peak resident bytes of the server and its Python models."""
    total = 0
    for process in tree(server.process_group):
        # It may have ended since it was listed.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            total += resident_peak(process)
    return total


def count_products(variant: Variant) -> int:
    """Return the multiplications with addition that one more image costs.

    What the head computes of the labels alone is not counted: the graphs have it as constants.
    """
    with torch.device("meta"):
        model = RAM(variant).eval()

    def count(batch: int) -> int:
        shape = (batch, variant.image_size, variant.image_size, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, device="meta")
        with FlopCounterMode(display=False) as counter:
            model(pixels)
        return int(counter.get_total_flops()) // 2

    return count(3) - count(2)


def matrix_product(
    precision: str, device: str, shrink: int = 1
) -> tuple[Callable[[], object], int]:
    """Return a chain of large matrix products, ready to be run, and its number of multiplications.

    On a GPU they are PyTorch's, on a CPU OpenVINO's, with one factor of each known in advance as
    weights are.

    Args:
        precision: `float32`, `bfloat16`, `float16` or, on a CPU, `INT8`.
        device: `cuda` or `cpu`.
        shrink: divides both sides of each matrix; more than 1 for trying things out.
    """
    rows, width = ROWS // shrink, WIDTH // shrink
    random = np.random.default_rng(0)
    first = random.standard_normal((rows, width), np.float32)
    # Of this size products neither grow nor fade along the chain.
    factors = [random.standard_normal((width, width), np.float32) / width**0.5] * LINKS
    products = rows * width * width * LINKS
    if device == "cuda":
        dtype = getattr(torch, precision)
        start, *links = (torch.from_numpy(each).to("cuda", dtype) for each in (first, *factors))

        def multiply_on_gpu() -> None:
            product = start
            for link in links:
                product = product @ link
            torch.cuda.synchronize()

        return multiply_on_gpu, products
    parameter = opset13.parameter([-1, width], np.float32)
    product = parameter
    for factor in factors:
        link = opset13.constant(factor)
        if precision == INT8:
            product, link = _quantised(product, LARGEST), _quantised(link, LARGEST / width**0.5)
        product = opset13.matmul(product, link, False, False)
    mean = opset13.reduce_mean(product, opset13.constant(np.array([0])), False)
    hint = {PRECISION: HINTS.get(precision, "f32")}  # quantised products are in INT8 with any
    request = compile_for_cpu(openvino.Model([mean], [parameter]), hint).create_infer_request()
    request.set_input_tensor(openvino.Tensor(first))
    return request.infer, products


def _quantised(node: openvino.Node, largest: float) -> openvino.Node:
    """Round to eight bits, so that OpenVINO multiplies in them."""
    low, high = (opset13.constant(np.float32(end)) for end in (-largest, largest))
    return opset13.fake_quantize(node, low, high, low, high, LEVELS)
