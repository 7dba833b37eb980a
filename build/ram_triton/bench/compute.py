"""What the model costs, and what the machine's own matrix product would allow."""

from collections.abc import Callable

import numpy as np
import openvino
import torch
from openvino import opset13
from torch.utils.flop_counter import FlopCounterMode

from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant

# Products as the encoder has them: rows are tokens of a batch. A chain of them, whose result is
# averaged to a row: what is timed is the multiplying, not the reading and writing of matrices.
ROWS, WIDTH, LINKS = 4608, 1536, 4
INT8 = "INT8"
OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", INT8: "f32"}
# INT8 has 255 levels from -4 to 4 deviations.
LARGEST, LEVELS = 4.0, 255


def count_products(variant: Variant) -> int:
    """Return the multiplications with addition that one more image costs.

    What the head computes of the labels alone is not among them: the graphs have it as constants.
    """
    with torch.device("meta"):
        model = RAM(variant).eval()

    def count(batch: int) -> int:
        shape = (batch, variant.image_size, variant.image_size, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, device="meta")
        with FlopCounterMode(display=False) as counter:
            model(pixels)
        return counter.get_total_flops() // 2

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
        shrink: of all sides; more than 1 for trying things out.
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
    hint = {"INFERENCE_PRECISION_HINT": OPENVINO_TYPES[precision]}
    request = openvino.compile_model(
        openvino.Model([mean], [parameter]), "CPU", hint
    ).create_infer_request()
    request.set_input_tensor(openvino.Tensor(first))
    return request.infer, products


def _quantised(node: openvino.Node, largest: float) -> openvino.Node:
    """Round to eight bits, so that OpenVINO multiplies in them."""
    low, high = (opset13.constant(np.float32(end)) for end in (-largest, largest))
    return opset13.fake_quantize(node, low, high, low, high, LEVELS)
