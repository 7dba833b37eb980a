"""INT8 for the CPU: NNCF quantises the matrix products of graphs, calibrated on pictures."""

from collections.abc import Sequence
from pathlib import Path

import openvino

from ram_triton.engines.openvino import CompiledGraph
from ram_triton.engines.tagger import Array, Pixels
from ram_triton.errors import GraphError

MOST_PICTURES = 300  # more calibrate no better, and take longer


def require_nncf() -> None:
    """Check that NNCF is installed.

    Raises:
        GraphError: it is not; the message has the command that installs it.
    """
    try:
        import nncf
    except ImportError as error:
        raise GraphError(
            "NNCF is missing: .venv/bin/pip install -e '.[int8]' installs it"
        ) from error
    nncf.set_log_level("ERROR")


def quantise(graph: openvino.Model, examples: Sequence[Array]) -> openvino.Model:
    """Return a graph with its matrix products in INT8, as far as NNCF takes them.

    Args:
        graph: a graph with one input.
        examples: that input, one batch each; the ranges of all decide the scales.

    Raises:
        GraphError: NNCF is missing.
    """
    require_nncf()
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix

    # Weights of seven bits: in a sum of two products of eight, 16 bits overflow on processors
    # without VNNI, which then answer differently.
    half_range = nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE)
    return nncf.quantize(
        graph,
        nncf.Dataset(list(examples)),
        subset_size=len(examples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=half_range,
    )


def quantise_pair(
    sources: Sequence[Path], targets: Sequence[Path], pictures: Sequence[Pixels]
) -> None:
    """Write encoder and head as OpenVINO graphs in INT8, their weights in a .bin beside each.

    Args:
        sources: the encoder's and the head's ONNX graph.
        targets: the .xml files to write.
        pictures: calibrate the scales, (1, size, size, 3) uint8 each.

    Raises:
        GraphError: NNCF is missing.
    """
    core = openvino.Core()
    encoder, head = (core.read_model(path) for path in sources)
    encode = CompiledGraph(encoder)
    embeds = [encode(pixels=pixels)["image_embeds"] for pixels in pictures]
    for graph, examples, target in zip((encoder, head), (pictures, embeds), targets, strict=True):
        openvino.save_model(quantise(graph, examples), target, compress_to_fp16=False)
