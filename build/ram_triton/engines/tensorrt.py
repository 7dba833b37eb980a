"""TensorRT: a typed graph to a serialized engine, by one path for TensorRT 10, 11 and RTX."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ram_triton.errors import EngineError
from ram_triton.repository.configs import Binding, Profile
from ram_triton.training.interruption import Interruption

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
# `tensorrt_bindings` is the Python part alone, which takes its libraries from the system.
MODULES = {TENSORRT: ("tensorrt", "tensorrt_bindings"), RTX: ("tensorrt_rtx",)}
DEFAULT_LEVEL, LEVELS = 3, range(6)
# TensorRT's types, as Triton's configs call them.
TYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "UINT8": "UINT8",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}

# Called with the name of what is being done and the share of it that is done, 0 to 1.
Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        level: 0 to 5, how long the builder searches for faster kernels.
        version_compatible: whether later versions of TensorRT may load the engine.
        hardware_compatible: whether all GPUs from Ampere on may run it.
    """

    level: int = DEFAULT_LEVEL
    version_compatible: bool = False
    hardware_compatible: bool = False


def load_tensorrt(flavour: str = TENSORRT) -> ModuleType:
    """Import TensorRT, or TensorRT-RTX, whose engines Triton does not load.

    Raises:
        EngineError: it is missing; the message says what to do.
    """
    for name in MODULES[flavour]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):  # not there, or its libraries are not
            continue
    if flavour == RTX:
        raise EngineError("TensorRT-RTX is missing: pip install tensorrt-rtx")
    raise EngineError(
        "TensorRT is missing: run this in the image of build/Dockerfile (README, 'On GPUs'), or "
        "pip install the 'tensorrt' of your server's own version"
    )


class Network:
    """A graph as TensorRT has understood it, ready to be built.

    Attributes:
        bindings: its inputs and outputs.
    """

    def __init__(self, trt: ModuleType, graph: Path) -> None:
        """Parse an ONNX graph.

        Raises:
            EngineError: there is no GPU, where TensorRT needs one; or it does not take the graph.
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
            found = [parser.get_error(index) for index in range(parser.num_errors)]
            reasons = [f"{e.node_operator()} '{e.node_name()}': {e.desc()}" for e in found[:1]]
            raise EngineError(f"{graph}: {' '.join(' '.join(reasons).split()) or 'not understood'}")
        self.bindings = [
            self._binding(get(index), is_input)
            for get, count, is_input in (
                (self._network.get_input, self._network.num_inputs, True),
                (self._network.get_output, self._network.num_outputs, False),
            )
            for index in range(count)
        ]

    def build(
        self,
        profile: Profile,
        options: Options = Options(),
        timing_cache: bytes | None = None,
        advance: Advance = lambda phase, share: None,
    ) -> tuple[memoryview, bytes]:
        """Build an engine; minutes, for a model of full size.

        Args:
            profile: the shapes that it has to take.
            options: how to build.
            timing_cache: of an earlier build by the same TensorRT on the same GPU, or empty; None
                keeps none, as TensorRT-RTX, which measures nothing.
            advance: called as the building goes on.

        Returns:
            The engine, and the timing cache with what was measured now.

        Raises:
            EngineError: TensorRT gives up.
        """
        trt = self._trt
        config = self._builder.create_builder_config()
        shapes = self._builder.create_optimization_profile()
        for source in (profile, *profile.others):
            shapes.set_shape(source.input, source.min, source.opt, source.max)
        if config.add_optimization_profile(shapes) < 0:
            raise self._error("the profile is refused")
        config.builder_optimization_level = options.level
        # What is float32 in the graph is so for its precision, which TF32 would halve again.
        config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if timing_cache is not None:
            self._use_cache(config, timing_cache)
        with _interruptible() as interruption:
            monitor = _make_monitor(trt, advance, interruption)  # lives as long as it is called
            config.progress_monitor = monitor
            engine = self._builder.build_serialized_network(self._network, config)
        if engine is None:
            raise self._error("no engine was built")
        if timing_cache is None:
            return memoryview(engine), b""
        return memoryview(engine), bytes(memoryview(config.get_timing_cache().serialize()))

    def _use_cache(self, config: object, contents: bytes) -> None:
        """Give the builder its former measurements, if they are of this machine and intact."""
        cache = config.create_timing_cache(contents)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _binding(self, tensor: object, is_input: bool) -> Binding:
        kind = tensor.dtype.name
        return Binding(tensor.name, TYPES.get(kind, kind), tuple(tensor.shape), is_input)

    def _error(self, text: str) -> EngineError:
        reason = f": {self._log.first}" if self._log.first else ""
        return EngineError(f"{self._graph}: {text}{reason}")


def make_log(trt: ModuleType) -> object:
    """A logger that keeps the first error for the one line that is said."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first = ""

        def log(self, severity: object, message: str) -> None:
            grave = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if grave and not self.first:
                self.first = " ".join(message.split())

    return Log()


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Hold Ctrl-C back until TensorRT returns: what is raised in a callback of its gets lost."""
    with Interruption() as interruption:
        yield interruption
    if interruption.signal is not None:
        raise KeyboardInterrupt


def _make_monitor(trt: ModuleType, advance: Advance, interruption: Interruption) -> object:
    """A monitor that tells of each phase, and stops the build once it was interrupted."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            advance(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            advance(phase, (step + 1) / max(self.steps.get(phase, 1), 1))
            return interruption.signal is None

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()
