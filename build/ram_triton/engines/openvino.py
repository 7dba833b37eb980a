"""OpenVINO: the engine of the CPU profile, compiled as its backend compiles it for the server."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openvino

from ram_triton.engines.tagger import Array, Tagger, chain
from ram_triton.errors import EngineError
from ram_triton.repository import layout
from ram_triton.repository.configs import EngineConfig
from ram_triton.server_code import openvino_on_cpu

_on_cpu = openvino_on_cpu()
PRECISION: str = _on_cpu.PRECISION
HINTS: dict[str, str] = {name: hint for hint, name in _on_cpu.NAMES.items()}
compile_for_cpu: Callable[[Path | openvino.Model, Mapping[str, object]], openvino.CompiledModel]
compile_for_cpu = _on_cpu.compile_for_cpu

FLOAT32: Mapping[str, object] = {PRECISION: HINTS["float32"]}
SERVED: Mapping[str, object] = {"PERFORMANCE_HINT": "LATENCY"}  # by each configs/cpu.pbtxt


class CompiledGraph:
    """A graph that runs on this machine's processor.

    Attributes:
        model: what OpenVINO has compiled.
    """

    def __init__(
        self, graph: Path | openvino.Model, properties: Mapping[str, object] = FLOAT32
    ) -> None:
        """Compile a graph, given as a file or in memory; by default in float32."""
        self.model = compile_for_cpu(graph, properties)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run it once; takes arrays and returns new ones, by the names of their tensors."""
        results = self.model(inputs)
        return {output.get_any_name(): array for output, array in results.items()}

    @property
    def precision(self) -> str:
        """What it computes in, such as `bfloat16`."""
        name: str = _on_cpu.precision_of(self.model)
        return name


def openvino_tagger(
    encoder: Path | openvino.Model,
    head: Path | openvino.Model,
    properties: Mapping[str, object] = FLOAT32,
    **given: Array,
) -> Tagger:
    """Return two graphs as one function of pixels.

    Args:
        encoder: the encoder's file, or its graph.
        head: the head's.
        properties: OpenVINO's, by name; by default float32.
        given: the head's inputs beside the image embeddings, by name.
    """
    return chain(CompiledGraph(encoder, properties), CompiledGraph(head, properties), **given)


def served_graphs(repository: Path) -> list[tuple[Path, dict[str, str]]]:
    """Return the files of encoder and head that the CPU profile names, with its properties.

    Raises:
        EngineError: a graph is missing.
        EngineConfigError: a config cannot be read.
    """
    found = []
    for graph in (layout.ENCODER, layout.HEAD):
        folder = (repository / graph).parent
        config = EngineConfig.read(folder.parent / "configs" / "cpu.pbtxt").model
        path = folder / config.default_model_filename
        if not path.is_file():
            raise EngineError(f"{path}: is missing, but configs/cpu.pbtxt names it")
        found.append((path, config_properties(config)))
    return found


def config_properties(config: Any) -> dict[str, str]:
    """Return the properties that a model's config (Triton's `ModelConfig`) sets."""
    values = {name: parameter.string_value for name, parameter in config.parameters.items()}
    chosen: dict[str, str] = _on_cpu.chosen_properties(values)
    return chosen
