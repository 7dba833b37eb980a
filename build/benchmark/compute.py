"""What the model costs, and what the machine's own matrix product would allow."""

from collections.abc import Callable

import numpy as np
import openvino
import torch
from openvino import opset13
from ram.model import RAM
from ram.variant import Variant
from torch.utils.flop_counter import FlopCounterMode

# A product as the encoder has them: rows are tokens of a batch, columns a feed-forward layer's.
ROWS, INNER, COLUMNS = 4608, 1536, 6144
OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


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


def matrix_product(precision: str, shrink: int = 1) -> tuple[Callable[[], object], int]:
    """Return a large product of matrices, ready to be run, and its number of multiplications.

    On a GPU it is PyTorch's, elsewhere OpenVINO's, with one matrix known in advance as weights are.

    Args:
        precision: `float32`, `bfloat16` or `float16`.
        shrink: of all sides; more than 1 for trying things out.
    """
    rows, inner, columns = (side // shrink for side in (ROWS, INNER, COLUMNS))
    random = np.random.default_rng(0)
    left = random.standard_normal((rows, inner), np.float32)
    right = random.standard_normal((inner, columns), np.float32)
    if torch.cuda.is_available():
        dtype = getattr(torch, precision)
        a, b = (torch.from_numpy(side).to("cuda", dtype) for side in (left, right))

        def multiply_on_gpu() -> None:
            torch.mm(a, b)
            torch.cuda.synchronize()

        return multiply_on_gpu, rows * inner * columns
    parameter = opset13.parameter([-1, inner], np.float32)
    product = opset13.matmul(parameter, opset13.constant(right), False, False)
    hint = {"INFERENCE_PRECISION_HINT": OPENVINO_TYPES[precision]}
    request = openvino.compile_model(
        openvino.Model([product], [parameter]), "CPU", hint
    ).create_infer_request()
    request.set_input_tensor(openvino.Tensor(left))
    return request.infer, rows * inner * columns
