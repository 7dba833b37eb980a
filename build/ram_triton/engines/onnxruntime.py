"""A half-precision graph run on the CPU, with its numbers really rounded to half precision.

ONNX Runtime has hardly any float16 arithmetic on x86 processors: it computes such nodes in float32
and leaves out the rounding between them, so that a run of the graph as it is would show neither its
error nor an overflow. Here each node of half precision computes in float32, and its result is
rounded to half precision before the next node reads it.
"""

from pathlib import Path

import onnx
import onnxruntime
from onnx import NodeProto, helper

from ram_triton.engines.tagger import Array
from ram_triton.graphs.half_precision import FLOAT, HALVES, MOVING, node_types

PEAK = "peak of "  # begins the names of the outputs that watch a tensor's magnitude


class RoundedGraph:
    """Runs a half-precision graph, and watches how large its half-precision numbers grow.

    Attributes:
        peaks: the largest magnitude that each half-precision tensor would have had in float32, over
            all runs, in the graph's order.
    """

    def __init__(self, path: Path) -> None:
        """Read and rewrite a graph that `halve` wrote."""
        model = onnx.load(path, load_external_data=False)
        watched = _round(model.graph)
        self._outputs = [value.name for value in model.graph.output]
        self.peaks = dict.fromkeys(watched, 0.0)
        model.graph.output.extend(
            helper.make_tensor_value_info(PEAK + name, FLOAT, []) for name in watched
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of each constant that it folds
        # In the graph's order: by default all magnitudes are measured at the end, which keeps every
        # tensor until then, 16 GB for a RAM of full size.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run it once; takes arrays and returns arrays by the names of their tensors."""
        results = self._session.run(None, inputs)
        given = len(self._outputs)
        for name, peak in zip(self.peaks, results[given:], strict=True):
            self.peaks[name] = max(self.peaks[name], float(peak))
        return dict(zip(self._outputs, results[:given], strict=True))


def _round(graph: onnx.GraphProto) -> list[str]:
    """Rewrite a graph to compute in float32 and round; returns the tensors to watch."""
    types = node_types(graph)
    halves = {name for name, element in types.items() if element in HALVES.values()}
    nodes: list[NodeProto] = []
    watched = []
    # Half-precision constants stay as they are, and are widened when the graph is loaded.
    for tensor in graph.initializer:
        if tensor.name in halves:
            nodes.append(_cast(tensor.name, _wide(tensor.name), FLOAT))
    for node in graph.node:
        half = node.output[0] in halves
        for place, name in enumerate(node.input):
            if name in halves:
                node.input[place] = _wide(name)
        if not half:
            nodes.append(node)
        elif node.op_type in MOVING:
            node.output[0] = _wide(node.output[0])
            nodes.append(node)
        else:
            result = node.output[0]
            exact, rounded = f"{result} (exact)", f"{result} (rounded)"
            if node.op_type == "Cast":
                node = _cast(node.input[0], exact, FLOAT)
            else:
                node.output[0] = exact
            nodes += [node, _cast(exact, rounded, types[result])]
            nodes += [_cast(rounded, _wide(result), FLOAT), *_peak(exact, PEAK + result)]
            watched.append(result)
    del graph.node[:]
    graph.node.extend(nodes)
    return watched


def _wide(name: str) -> str:
    return f"{name} (float32)"


def _cast(source: str, target: str, element: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=element)


def _peak(source: str, target: str) -> list[NodeProto]:
    """Measure the largest magnitude by two scalars: faster than an Abs of the whole tensor.

    ONNX Runtime passes over NaN, but a NaN comes from an infinity, which is the largest magnitude.
    """
    high, low, depth = (f"{source} {name}" for name in ("largest", "smallest", "depth"))
    return [
        helper.make_node("ReduceMax", [source], [high], keepdims=0),
        helper.make_node("ReduceMin", [source], [low], keepdims=0),
        helper.make_node("Neg", [low], [depth]),
        helper.make_node("Max", [high, depth], [target]),
    ]
