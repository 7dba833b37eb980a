"""What a model's config asks of its engine: names, types, shapes, and an optimisation profile."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from ram_triton.errors import EngineConfigError

FREE = -1  # a dimension that is known only when a request comes
SIZES = re.compile(r"\s*[1-9]\d*(x[1-9]\d*)*\s*$")


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine.

    Attributes:
        name: the tensor's.
        type: as Triton's configs write it without `TYPE_`: `UINT8`, `FP32`, …
        shape: with the batch first; `FREE` where a dimension is not fixed.
        is_input: or an output.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    is_input: bool


@dataclass(frozen=True)
class Profile:
    """Shapes of the first input, and of others if there are any.

    Attributes:
        input: the input's name.
        min: the smallest shape.
        opt: the shape to be fastest at.
        max: the largest shape.
        others: the same of each further input.
    """

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]
    others: tuple["Profile", ...] = ()

    def as_dict(self) -> dict[str, dict[str, list[int]]]:
        """Return the shapes by the inputs' names, for `plan.json`."""
        shapes = {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}
        return {self.input: shapes} | {k: v for p in self.others for k, v in p.as_dict().items()}


@dataclass(frozen=True)
class EngineConfig:
    """The part of a `config.pbtxt` that an engine must fit.

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
            EngineConfigError: it is missing, or no config.
        """
        try:
            return cls(path, text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig()))
        except OSError as error:
            raise EngineConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise EngineConfigError(f"{path}: {' '.join(str(error).split())}") from error

    def check(self, bindings: Iterable[Binding]) -> None:
        """Compare a network's inputs and outputs with the config's.

        Raises:
            EngineConfigError: a name or type differs, the batch (or what else the config leaves
                free) is not free, or another dimension is free or not what the config says.
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

        Of a model that batches: batches from 1 to `max_batch_size`, fastest for the largest
        preferred batch: there a busy server spends its time. Of another the config's parameter of
        each input's name says it: smallest, usual, largest, as in `1, 8, 32`, or with several free
        dimensions `1x4, 8x16, 32x77`.

        Raises:
            EngineConfigError: a preferred batch is over the largest, or a parameter is missing.
        """
        first, *others = (
            Profile(source.name, *((*size, *source.shape[len(size) :]) for size in sizes))
            for source in bindings
            if source.is_input
            for sizes in [self.sizes(source.name)]
        )
        return replace(first, others=tuple(others))

    def sizes(self, name: str) -> list[tuple[int, ...]]:
        """Return the smallest, usual and largest sizes of an input's free dimensions.

        Raises:
            EngineConfigError: a preferred batch is over the largest, or a parameter is missing.
        """
        largest = self.model.max_batch_size
        if largest:
            preferred = max(self.model.dynamic_batching.preferred_batch_size, default=largest)
            if not 1 <= preferred <= largest:
                raise self._error(
                    f"a preferred batch of {preferred} is over max_batch_size {largest}"
                )
            return [(1,), (preferred,), (largest,)]
        text = self.model.parameters[name].string_value if name in self.model.parameters else ""
        sizes = [tuple(map(int, part.split("x"))) for part in text.split(",") if SIZES.match(part)]
        if len(sizes) != 3 or sorted(sizes) != sizes or len({len(size) for size in sizes}) > 1:
            raise self._error(f"the parameter '{name}' must say three sizes, as in '1, 8, 32'")
        return sizes

    def _free(self, name: str, is_input: bool) -> int:
        """How many dimensions of a tensor, from its first on, are free."""
        batches = self.model.max_batch_size or not is_input
        return 1 if batches else len(self.sizes(name)[0])

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
            raise self._error(f"'{found.name}' is {'no output' if found.is_input else 'no input'}")
        if found.type != wanted.type:
            raise self._error(f"'{found.name}' is {found.type} in the graph, {wanted.type} here")
        free = self._free(found.name, found.is_input)
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


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
