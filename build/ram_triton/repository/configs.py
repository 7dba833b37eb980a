"""A model's config.pbtxt, the tensors of its graph, and the shapes that an engine has to take."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from ram_triton.errors import EngineConfigError, GraphError

FREE = -1  # a dimension whose size depends on the request
SIZES = re.compile(r"\s*[1-9]\d*(x[1-9]\d*)*\s*$")
# ONNX's names of the types that Triton names otherwise.
ONNX_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64"}


@dataclass(frozen=True)
class Binding:
    """An input or output of a graph.

    Attributes:
        name: the tensor's name.
        type: as Triton's configs write it without `TYPE_`: `UINT8`, `FP32`, …
        shape: with the batch first; `FREE` for a dimension that is not fixed.
        is_input: or an output.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    is_input: bool


@dataclass(frozen=True)
class Shapes:
    """The shapes of an input that an engine takes.

    Attributes:
        min: the smallest shape.
        opt: the shape for which the engine is fastest.
        max: the largest shape.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = Mapping[str, Shapes]  # by the inputs' names


@dataclass(frozen=True)
class EngineConfig:
    """A `config.pbtxt`, and what an engine must have to fit it.

    Attributes:
        path: the file.
        model: its message.
    """

    path: Path
    model: ModelConfig

    @classmethod
    def read(cls, path: Path) -> "EngineConfig":
        """Read a config.

        Raises:
            EngineConfigError: it is missing or not a config.
        """
        try:
            return cls(path, text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig()))
        except OSError as error:
            raise EngineConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise EngineConfigError(f"{path}: {' '.join(str(error).split())}") from error

    def parameter(self, name: str) -> str | None:
        """Return a parameter's text; None if the config lacks it."""
        parameters = self.model.parameters  # reading a missing key would add it
        return str(parameters[name].string_value) if name in parameters else None

    def last_number(self, name: str) -> int | None:
        """Return the last number of a parameter such as `1x4, 8x16`; None if it ends in none."""
        number = re.split("[,x]", self.parameter(name) or "")[-1].strip()
        return int(number) if number.isdecimal() else None

    @property
    def starves(self) -> bool:
        """Whether the dynamic batcher of Triton before 26.08 slows down to a stall under load.

        A limit of the queue, a queue delay and batching together do that: server#8870, core#509.
        The issue names the default timeout. A largest queue size does the same: either switches
        prefetching off (core's src/scheduler_utils.cc, `support_prefetching_`), and then the
        batches that a delay merges are counted wrongly.
        """
        batching = self.model.dynamic_batching
        policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
        return (
            self.model.max_batch_size > 1
            and batching.max_queue_delay_microseconds > 0
            and any(
                policy.default_timeout_microseconds
                or policy.max_queue_size
                or policy.allow_timeout_override
                for policy in policies
            )
        )

    def check(self, bindings: Iterable[Binding]) -> None:
        """Compare a graph's inputs and outputs with the config's.

        Raises:
            EngineConfigError: a name or type differs, the batch (or what else the config leaves
                free) is not free, or another dimension is free or differs from the config.
        """
        found = {binding.name: binding for binding in bindings}
        configured = self._bindings()
        if missing := configured.keys() - found.keys():
            raise self._error(f"the graph has no tensor {_names(missing)}")
        if unexpected := found.keys() - configured.keys():
            raise self._error(f"the graph's {_names(unexpected)} is not in the config")
        for name, wanted in configured.items():
            self._compare(found[name], wanted)

    def profile(self, bindings: Iterable[Binding]) -> Profile:
        """Return the shapes that the engine has to take.

        A model that batches takes batches from 1 to `max_batch_size`, and is fastest for the
        largest preferred batch, which is what a busy server runs. Another model has a parameter
        per input, with the smallest, usual and largest size: `1, 8, 32`, or with several free
        dimensions `1x4, 8x16, 32x77`. A model that batches has one for inputs with free dimensions
        beside the batch.

        Raises:
            EngineConfigError: a preferred batch is over the largest, or a parameter is missing.
        """
        profile = {}
        for binding in bindings:
            if binding.is_input:
                sizes = self.sizes(binding.name)
                profile[binding.name] = Shapes(
                    *((*size, *binding.shape[len(size) :]) for size in sizes)
                )
        return profile

    def sizes(self, name: str) -> list[tuple[int, ...]]:
        """Return the smallest, usual and largest sizes of an input's free dimensions.

        Raises:
            EngineConfigError: a preferred batch is over the largest, or a parameter is missing.
        """
        largest = self.model.max_batch_size
        if not largest:
            return self._listed_sizes(name)
        preferred = max(self.model.dynamic_batching.preferred_batch_size, default=largest)
        if not 1 <= preferred <= largest:
            raise self._error(f"a preferred batch of {preferred} is over max_batch_size {largest}")
        others = self._listed_sizes(name) if self.parameter(name) else [()] * 3
        return [
            (batch, *sizes) for batch, sizes in zip((1, preferred, largest), others, strict=True)
        ]

    def _listed_sizes(self, name: str) -> list[tuple[int, ...]]:
        """Return the sizes that the parameter of an input has."""
        parts = (self.parameter(name) or "").split(",")
        sizes = [tuple(map(int, part.split("x"))) for part in parts if SIZES.match(part)]
        if len(sizes) != 3 or sorted(sizes) != sizes or len({len(size) for size in sizes}) > 1:
            raise self._error(f"the parameter '{name}' must be three sizes, such as '1, 8, 32'")
        return sizes

    def _bindings(self) -> dict[str, Binding]:
        return {
            entry.name: Binding(
                entry.name,
                DataType.Name(entry.data_type).removeprefix("TYPE_"),
                (FREE, *entry.dims) if self.model.max_batch_size else tuple(entry.dims),
                is_input,
            )
            for entries, is_input in ((self.model.input, True), (self.model.output, False))
            for entry in entries
        }

    def _compare(self, found: Binding, wanted: Binding) -> None:
        if found.is_input != wanted.is_input:
            kind = "an output" if found.is_input else "an input"
            raise self._error(f"'{found.name}' is not {kind} of the graph")
        if found.type != wanted.type:
            raise self._error(f"'{found.name}' is {found.type} in the graph, {wanted.type} here")
        # How many dimensions, from the first on, are free.
        free = len(self.sizes(found.name)[0]) if found.is_input else 1
        batch, sizes = found.shape[:free], list(found.shape[free:])
        if set(batch) != {FREE}:
            raise self._error(f"'{found.name}' has a fixed batch of {batch[0]}")
        if found.is_input and FREE in sizes:
            raise self._error(f"'{found.name}' has free dimensions beside the batch: {sizes}")
        dims = list(wanted.shape[free:])
        if len(sizes) != len(dims) or any(
            dim not in (FREE, size) for size, dim in zip(sizes, dims, strict=True)
        ):
            raise self._error(f"'{found.name}' is {sizes} in the graph, {dims} here")

    def _error(self, text: str) -> EngineConfigError:
        return EngineConfigError(f"{self.path}: {text}")


def read_bindings(graph: Path) -> list[Binding]:
    """Return the inputs and outputs of an ONNX graph; its weights are not read.

    Raises:
        GraphError: the file is not an ONNX graph.
        OSError: it cannot be read.
    """
    import onnx

    try:
        contents = onnx.load(graph, load_external_data=False).graph
    except DecodeError as error:
        raise GraphError(f"{graph}: is not an ONNX graph") from error
    return [
        Binding(
            value.name,
            ONNX_TYPES.get(kind, kind),
            tuple(dim.dim_value or FREE for dim in value.type.tensor_type.shape.dim),
            is_input,
        )
        for values, is_input in ((contents.input, True), (contents.output, False))
        for value in values
        for kind in [onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)]
    ]


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
