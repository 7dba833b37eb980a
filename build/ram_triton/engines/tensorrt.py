"""TensorRT: a graph to a serialized engine, the same way for TensorRT 10, 11 and RTX."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ram_triton.errors import EngineError
from ram_triton.repository.configs import Binding, Profile
from ram_triton.signals import Interruption

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
# `tensorrt_bindings` is the Python part alone, which takes its libraries from the system.
MODULES = {TENSORRT: ("tensorrt", "tensorrt_bindings"), RTX: ("tensorrt_rtx",)}
DEFAULT_LEVEL, LEVELS = 3, range(6)
# TensorRT's names of the types that Triton names otherwise.
TYPES = {"FLOAT": "FP32", "HALF": "FP16"}

# Called with the name of a phase and the share of it that is done, 0 to 1.
Progress = Callable[[str, float], None]
Object = Any  # of TensorRT's own classes, which have no types


@dataclass(frozen=True)
class BuilderOptions:
    """How to build.

    Attributes:
        builder_level: 0 to 5, how long the builder searches for faster kernels.
        version_compatible: whether later versions of TensorRT may load the engine.
        hardware_compatible: whether all GPUs from Ampere on may run it.
    """

    builder_level: int = DEFAULT_LEVEL
    version_compatible: bool = False
    hardware_compatible: bool = False


def load_tensorrt(flavour: str = TENSORRT) -> ModuleType:
    """Import TensorRT, or TensorRT-RTX, whose engines Triton does not load.

    Raises:
        EngineError: it is missing; the message contains the remedy.
    """
    for name in MODULES[flavour]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):  # the module or its libraries are missing
            continue
    if flavour == RTX:
        raise EngineError("TensorRT-RTX is missing: pip install tensorrt-rtx")
    raise EngineError(
        "TensorRT is missing: run this in the image of deploy/Dockerfile, or pip install the "
        "'tensorrt' of your server's own version"
    )


class Network:
    """A graph that TensorRT has parsed, ready to be built.

    Attributes:
        bindings: its inputs and outputs.
    """

    def __init__(self, trt: ModuleType, graph: Path) -> None:
        """Parse an ONNX graph.

        Raises:
            EngineError: TensorRT needs a GPU and finds none, or it refuses the graph.
        """
        self._trt, self._graph = trt, graph
        self._log = make_log(trt)
        try:
            self._builder = trt.Builder(self._log)
        except (RuntimeError, TypeError) as error:  # what its constructor does without a GPU
            raise self._error("TensorRT finds no GPU to build for") from error
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._network = self._builder.create_network(flags)
        parser = trt.OnnxParser(self._network, self._log)
        with _interruptible():
            parsed = parser.parse_from_file(str(graph))
        if not parsed:
            raise EngineError(f"{graph}: {_first_error(parser)}")
        network = self._network
        self.bindings = [
            *(_binding(network.get_input(index), True) for index in range(network.num_inputs)),
            *(_binding(network.get_output(index), False) for index in range(network.num_outputs)),
        ]

    def build(
        self,
        profile: Profile,
        options: BuilderOptions = BuilderOptions(),
        timing_cache: bytes | None = None,
        progress: Progress = lambda phase, share: None,
    ) -> tuple[memoryview, bytes]:
        """Build an engine; this takes minutes for a model of full size.

        Args:
            profile: the shapes that it has to take.
            options: how to build.
            timing_cache: the cache of an earlier build by the same TensorRT on the same GPU, or
                empty; None keeps none, as for TensorRT-RTX, which measures nothing.
            progress: called as the build proceeds.

        Returns:
            The engine, and the timing cache with the new measurements.

        Raises:
            EngineError: TensorRT gives up.
            KeyboardInterrupt: Ctrl-C or SIGTERM, once TensorRT has stopped.
        """
        trt = self._trt
        config = self._builder.create_builder_config()
        shapes = self._builder.create_optimization_profile()
        for name, sizes in profile.items():
            shapes.set_shape(name, sizes.min, sizes.opt, sizes.max)
        if config.add_optimization_profile(shapes) < 0:
            raise self._error("the profile is refused")
        config.builder_optimization_level = options.builder_level
        # A tensor that is float32 in the graph is so for its precision, which TF32 would reduce.
        config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if timing_cache is not None:
            self._use_cache(config, timing_cache)
        with _interruptible() as interruption:
            monitor = _make_monitor(trt, progress, interruption)  # must outlive the build
            config.progress_monitor = monitor
            engine = self._builder.build_serialized_network(self._network, config)
        if engine is None:
            raise self._error("no engine was built")
        if timing_cache is None:
            return memoryview(engine), b""
        return memoryview(engine), bytes(memoryview(config.get_timing_cache().serialize()))

    def _use_cache(self, config: Object, contents: bytes) -> None:
        """Give the builder its earlier measurements if they are of this machine and intact."""
        cache = config.create_timing_cache(contents)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _error(self, text: str) -> EngineError:
        reason = f": {self._log.first}" if self._log.first else ""
        return EngineError(f"{self._graph}: {text}{reason}")


def make_log(trt: ModuleType) -> Object:
    """Return a TensorRT logger that keeps the first error in `first`, for the one-line message."""

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first = ""

        def log(self, severity: object, message: str) -> None:
            errors = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if severity in errors and not self.first:
                self.first = " ".join(message.split())

    return Log()


def _first_error(parser: Object) -> str:
    """Return the parser's first error in one line."""
    if not parser.num_errors:
        return "TensorRT cannot parse it"
    error = parser.get_error(0)
    return " ".join(f"{error.node_operator()} '{error.node_name()}': {error.desc()}".split())


def _binding(tensor: Object, is_input: bool) -> Binding:
    kind = tensor.dtype.name
    return Binding(tensor.name, TYPES.get(kind, kind), tuple(tensor.shape), is_input)


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Hold Ctrl-C back until TensorRT returns: an exception in its callback would be lost."""
    with Interruption() as interruption:
        yield interruption
    interruption.raise_signal()


def _make_monitor(trt: ModuleType, progress: Progress, interruption: Interruption) -> Object:
    """Return a monitor that reports each phase, and stops the build after an interruption."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            progress(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, (step + 1) / max(self.steps.get(phase, 1), 1))
            return interruption.signal is None

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()
