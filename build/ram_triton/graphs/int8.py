"""INT8 for the CPU: graphs whose matrix products NNCF quantises, after pictures that calibrate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from ram_triton.errors import GraphError
from ram_triton.parity.compare import Limits

# Twice bfloat16's: eight bits round as coarsely as its eight bits of mantissa, but activations too.
LIMITS = Limits(logit_difference=1.6, flip_distance=0.8, tag_f1=0.85)
MOST_PICTURES = 300  # more calibrate no better, and take longer


def require_nncf() -> None:
    """Check that what quantises is installed.

    Raises:
        GraphError: it is not; the message says how to install it.
    """
    try:
        import nncf
    except ImportError as error:
        raise GraphError("NNCF is missing: 'make .venv/.installed-int8' installs it") from error
    nncf.set_log_level("ERROR")


def quantise(graph: openvino.Model, examples: Sequence[np.ndarray]) -> openvino.Model:
    """Return a graph with its matrix products in INT8, as far as NNCF takes them.

    Args:
        graph: of one input.
        examples: what it is given, each as one batch; their ranges decide the scales.

    Raises:
        GraphError: NNCF is missing.
    """
    require_nncf()
    import nncf

    return nncf.quantize(
        graph,
        nncf.Dataset(list(examples)),
        subset_size=len(examples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )


def quantise_pair(
    sources: Sequence[Path], targets: Sequence[Path], pictures: Sequence[np.ndarray]
) -> None:
    """Write encoder and head as OpenVINO graphs in INT8, their weights in a .bin beside each.

    Args:
        sources: the encoder's and the head's ONNX graph.
        targets: the .xml files to write.
        pictures: what calibrates, (1, size, size, 3) uint8 each.

    Raises:
        GraphError: NNCF is missing.
    """
    core = openvino.Core()
    encoder, head = (core.read_model(path) for path in sources)
    encode = core.compile_model(encoder, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    embeds = [encode(pixels)["image_embeds"].copy() for pixels in pictures]
    for graph, examples, target in zip((encoder, head), (pictures, embeds), targets, strict=True):
        openvino.save_model(quantise(graph, examples), target, compress_to_fp16=False)
