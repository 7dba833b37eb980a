"""Compiling a graph for the CPU, for the server's backend and for the build, which measures it.

It imports nothing of this project: the backend runs in processes of Triton.
"""

from collections.abc import Mapping
from pathlib import Path

import openvino

PRECISION = "INFERENCE_PRECISION_HINT"
# Parameters of a model's config that are OpenVINO's own properties.
PROPERTIES = (
    PRECISION,
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "CACHE_DIR",
    "CPU_RUNTIME_CACHE_CAPACITY",
)
# OpenVINO's names of the precisions, and everyone else's.
NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def compile_for_cpu(
    graph: Path | openvino.Model, properties: Mapping[str, object]
) -> openvino.CompiledModel:
    """Compile a graph, or the file of one, for this machine's processor.

    Args:
        graph: an OpenVINO graph, or an ONNX or OpenVINO file.
        properties: OpenVINO's, by name.
    """
    return openvino.Core().compile_model(graph, "CPU", dict(properties))


def chosen_properties(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return OpenVINO's properties among the parameters of a model's config."""
    return {name: parameters[name] for name in PROPERTIES if name in parameters}


def precision_of(compiled: openvino.CompiledModel) -> str:
    """Return the precision that a graph computes in, such as `bfloat16`."""
    name: str = compiled.get_property(PRECISION).get_type_name()
    return NAMES.get(name, name)
