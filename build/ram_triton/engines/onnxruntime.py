"""A half-precision graph run on the CPU, with its numbers really rounded to half precision.

ONNX Runtime has hardly any float16 arithmetic on x86 processors: it computes such nodes in float32
and leaves out the rounding between them, so that a run of the graph as it is would show neither its
error nor an overflow. Here each node of half precision computes in float32, and its result is
rounded to half precision before the next node reads it.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, helper

from ram_triton.graphs.half_precision import FLOAT, HALVES, MOVING, node_types

PEAK = "peak of "  # begins the names of the outputs that watch a tensor's magnitude


class RoundedGraph:
    """Runs a half-precision graph, and watches how large its half-precision numbers grow.

    Attributes:
        peaks: the largest magnitude that each half-precision tensor would have had in float32, over
            all runs, in the graph's order.
    """

    def __init__(self, path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        watched = _round(model.graph)
        self.outputs = [value.name for value in model.graph.output]
        self.peaks = dict.fromkeys(watched, 0.0)
        model.graph.output.extend(
            helper.make_tensor_value_info(PEAK + name, FLOAT, []) for name in watched
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of each constant that it folds
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run it once; takes arrays and returns arrays by their tensors' names."""
        results = self.session.run(None, inputs)
        given = len(self.outputs)
        for name, peak in zip(self.peaks, results[given:], strict=True):
            # Not max(): a peak that is no number must stay one, and fail.
            self.peaks[name] = float(np.maximum(self.peaks[name], peak))
        return dict(zip(self.outputs, results[:given], strict=True))


class RoundedTagger:
    """A half-precision encoder and head as one function of pixels, a `Tagger`.

    What the head takes beside the image embeddings is given once, by its names.
    """

    def __init__(self, encoder_path: Path, head_path: Path, **given: np.ndarray) -> None:
        self.encoder, self.head = RoundedGraph(encoder_path), RoundedGraph(head_path)
        self.given = given

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Tag (B, size, size, 3) uint8; returns (B, tags) float32."""
        image_embeds = self.encoder(pixels=pixels)["image_embeds"]
        return self.head(image_embeds=image_embeds, **self.given)["logits"]

    def largest_activation(self) -> tuple[str, float]:
        """Return the half-precision tensor that grew largest so far, and how large."""
        peaks = {
            f"{part}: {name}": peak
            for part, graph in (("encoder", self.encoder), ("head", self.head))
            for name, peak in graph.peaks.items()
        }
        # The first that is no number, else the largest.
        name = max(peaks, key=lambda name: np.inf if np.isnan(peaks[name]) else peaks[name])
        return name, peaks[name]


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
    return [
        helper.make_node("Abs", [source], [f"{source} magnitude"]),
        helper.make_node("ReduceMax", [f"{source} magnitude"], [target], keepdims=0),
    ]
