"""Float32 ONNX to a strongly typed graph: half precision where it is safe, float32 elsewhere.

TensorRT 11 computes each node in the type that the graph gives it, and so does 10 when asked to.
As PyTorch's autocast does, matrix products are in half precision, LayerNorm and the residual stream
in float32: sums over many blocks lose the least there, and large activations do not overflow.
"""

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ram_triton.errors import GraphError
from ram_triton.repository.layout import NONE

FLOAT = TensorProto.FLOAT
HALVES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
NUMPY_TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# These move numbers and compute none: they keep the type of what they are given.
MOVING = frozenset(
    {"Concat", "Gather", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
# In half precision; softmax too, or TensorRT cannot fuse attention (its kernels sum in float32).
COMPUTING = frozenset({"Add", "Conv", "Gelu", "Gemm", "MatMul", "Mul", "Relu", "Softmax"})
IN_FLOAT32 = frozenset({"Div", "LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum"})
ON_INTEGERS = frozenset({"GreaterOrEqual", "Max", "Shape"})  # of sizes and ids


def largest_number(precision: str) -> float:
    """Return the largest finite number of a half precision."""
    return float(ml_dtypes.finfo(NUMPY_TYPES[precision]).max)  # type: ignore[no-untyped-call]


def halve(source: Path, target: Path, precision: str) -> None:
    """Write the half-precision form of a float32 graph, its weights in a file beside it.

    Inputs and outputs keep their names and types. These stay in float32: all before the first
    convolution (the pixels' normalisation), LayerNorm, means, the residual stream, and all after
    the last LayerNorm (the last projection, which makes the outputs) or, where there is none, all
    after the last softmax (the sum of a heat map's heads).

    Args:
        source: a graph that `export_module` wrote, in which all constants are folded.
        target: where to write, with `.data` beside it.
        precision: `float16` or `bfloat16`.

    Raises:
        GraphError: a constant is out of range, or an operator is unknown.
    """
    model = onnx.load(source)
    _Typing(model.graph, precision).rewrite()
    del model.graph.value_info[:]  # types that are no longer right
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(_without_weights(model)))
    target.parent.mkdir(parents=True, exist_ok=True)
    data = target.name + ".data"
    (target.parent / data).unlink(missing_ok=True)  # onnx appends to what is there
    onnx.save(model, target, save_as_external_data=True, location=data)
    if (target.parent / data).exists():  # onnx lets only its writer read it
        shutil.copymode(target, target.parent / data)


def node_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the type of each floating tensor of a half-precision graph, by its name."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        if node.op_type == "Cast":
            types[node.output[0]] = helper.get_node_attr_value(node, "to")
        elif node.op_type == "Shape":
            types[node.output[0]] = TensorProto.INT64
        else:
            types |= dict.fromkeys(node.output, types[node.input[0]])
    floating = (FLOAT, *HALVES.values())
    return {name: element for name, element in types.items() if element in floating}


class _Typing:
    """Gives each node of a graph its type, and casts what flows between nodes of two types."""

    def __init__(self, graph: onnx.GraphProto, precision: str) -> None:
        self.graph, self.precision, self.half = graph, precision, HALVES[precision]
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types = {
            value.name: FLOAT
            for value in (*graph.input, *graph.initializer)
            if _element_type(value) == FLOAT
        }
        self.nodes: list[NodeProto] = []
        self.cast: dict[tuple[str, int], str] = {}  # tensor and type to its name in that type
        self.normalised: set[str] = set()

    def rewrite(self) -> None:
        nodes = list(self.graph.node)
        kinds = [node.op_type for node in nodes]
        if unknown := set(kinds) - MOVING - COMPUTING - IN_FLOAT32 - ON_INTEGERS - {"Cast"}:
            raise GraphError(
                f"no rule for the operators {', '.join(sorted(unknown))} in half precision: "
                f"PRECISION={NONE} builds without it"
            )
        first = kinds.index("Conv") if "Conv" in kinds else 0
        # Heat maps have no LayerNorm: there all after the attention makes the output.
        end = "LayerNormalization" if "LayerNormalization" in kinds else "Softmax"
        last = len(kinds) - 1 - kinds[::-1].index(end)
        feeding_norms = {n.input[0] for n in nodes if n.op_type == "LayerNormalization"}
        for index, node in enumerate(nodes):
            if node.op_type == "Cast":
                self._keep(node)
            elif node.op_type in ON_INTEGERS or not self.types.keys() & set(node.input):
                self.nodes.append(node)  # it handles sizes or ids
            elif node.op_type in MOVING and first <= index <= last:
                self._move(node)
            else:
                outside = not first <= index <= last
                exact = outside or node.op_type in IN_FLOAT32
                exact = exact or self._is_residual(node, feeding_norms)
                self._compute(node, FLOAT if exact else self.half)
        for value in self.graph.output:
            if self.types[value.name] != FLOAT:
                raise GraphError(f"the output '{value.name}' would not be float32")
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        self.graph.initializer.extend(t for name, t in self.constants.items() if name in used)

    def _is_residual(self, node: NodeProto, feeding_norms: set[str]) -> bool:
        """Whether it adds a block's result to what passed it by, or makes what a LayerNorm takes.

        The head's first block adds to its queries, which are constant.
        """
        computed = not any(name in self.constants for name in node.input)
        return node.op_type == "Add" and (computed or node.output[0] in feeding_norms)

    def _keep(self, node: NodeProto) -> None:
        self.types[node.output[0]] = helper.get_node_attr_value(node, "to")
        self.nodes.append(node)

    def _move(self, node: NodeProto) -> None:
        """Half the bytes where float32 is not needed: constants and norms are cast before."""
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        cast_first = self.normalised | self.constants.keys()
        exact = all(self.types[name] == FLOAT and name not in cast_first for name in moved)
        self._compute(node, FLOAT if exact else self.half)

    def _compute(self, node: NodeProto, wanted: int) -> None:
        for place, name in enumerate(node.input):
            if name in self.types and self.types[name] != wanted:
                node.input[place] = self._in_type(name, wanted)
        self.types |= dict.fromkeys(node.output, wanted)
        if node.op_type == "LayerNormalization":
            self.normalised.add(node.output[0])
        self.nodes.append(node)

    def _in_type(self, name: str, wanted: int) -> str:
        key = name, wanted
        if key not in self.cast:
            self.cast[key] = f"{name}.{TensorProto.DataType.Name(wanted).lower()}"
            if name in self.constants:
                self._convert(name, self.cast[key])
            else:
                node = helper.make_node(
                    "Cast", [name], [self.cast[key]], to=wanted, name=f"cast_{self.cast[key]}"
                )
                self.nodes.append(node)
        return self.cast[key]

    def _convert(self, name: str, converted: str) -> None:
        values = numpy_helper.to_array(self.constants[name])
        largest = float(np.abs(values).max(initial=0))
        if not largest <= largest_number(self.precision):  # so that NaN fails too
            raise GraphError(
                f"the constant '{name}' contains {largest:.3g}, {self.precision} ends at "
                f"{largest_number(self.precision):.3g}"
            )
        halved = values.astype(NUMPY_TYPES[self.precision])
        self.constants[converted] = numpy_helper.from_array(halved, converted)


def _element_type(value: onnx.ValueInfoProto | TensorProto) -> int:
    return value.data_type if isinstance(value, TensorProto) else value.type.tensor_type.elem_type


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its large constants left out: what a check of types needs."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    for field in ("node", "input", "output"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64:  # shapes
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light
