"""OpenVINO on the CPU: properties that configs set, names of precisions, and compiling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino

# These are the server's too, whose backend has to be one file: build/backends/openvino/model.py.
PRECISION = "INFERENCE_PRECISION_HINT"
PROPERTIES = (PRECISION, "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS", "CACHE_DIR")
NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}

FLOAT32: Mapping[str, object] = {PRECISION: "f32"}
SERVED: Mapping[str, object] = {"PERFORMANCE_HINT": "LATENCY"}  # by each configs/cpu.pbtxt


def compile_for_cpu(
    graph: Path | openvino.Model, properties: Mapping[str, object] = FLOAT32
) -> openvino.CompiledModel:
    """Compile a graph for this machine's processor, by default in float32."""
    return openvino.Core().compile_model(graph, "CPU", dict(properties))


def config_properties(config: Any) -> dict[str, object]:
    """Return the properties that a model's config (Triton's `ModelConfig`) sets."""
    return {
        name: config.parameters[name].string_value
        for name in PROPERTIES
        if name in config.parameters
    }


def precision_of(model: openvino.CompiledModel) -> str:
    """Return the precision that a compiled graph computes in, such as `bfloat16`."""
    hint = str(model.get_property(PRECISION).get_type_name())
    return NAMES.get(hint, hint)
