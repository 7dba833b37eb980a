"""A TensorRT engine on the GPU, run on PyTorch's tensors.

Apart from `tensorrt`, because the serving image makes plans without PyTorch.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ram_triton.engines.tagger import Array, Pixels, chain
from ram_triton.engines.tensorrt import make_log
from ram_triton.errors import EngineError

# The types that outputs of these engines have, by TensorRT's names.
TORCH_TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}


def require_cuda() -> None:
    """Check that PyTorch reaches a GPU: its tensors are the engine's inputs and outputs.

    Raises:
        EngineError: it does not; the message states why, in one line.
    """
    if torch.cuda.is_available():
        return
    if torch.version.cuda is None:
        raise EngineError("this PyTorch was built without CUDA: install the one for your GPU")
    raise EngineError("PyTorch finds no NVIDIA GPU here")


class LoadedEngine:
    """An engine that was deserialised, ready to be called with tensors on the GPU.

    Attributes:
        inputs: names of its inputs.
        outputs: names of its outputs.
    """

    def __init__(self, trt: ModuleType, serialized: bytes | memoryview, name: str) -> None:
        """Deserialise an engine, or a plan, of the TensorRT `trt`.

        Args:
            trt: the module that built it; TensorRT's or TensorRT-RTX's.
            serialized: the engine.
            name: the engine's name in errors.

        Raises:
            EngineError: there is no GPU, or the engine is not for it or for this TensorRT.
        """
        require_cuda()
        log = make_log(trt)
        runtime = trt.Runtime(log)
        # A version-compatible plan carries a runtime, which runs only if this allows it.
        runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(serialized)
        context = engine and engine.create_execution_context()
        if not context:
            raise EngineError(
                f"{name}: cannot be loaded: {log.first or 'TensorRT gives no reason'}"
            )
        self._name, self._log = name, log
        self._runtime, self._engine, self._context = runtime, engine, context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Queue one run on PyTorch's current stream.

        Args:
            inputs: contiguous tensors on the GPU, by the engine's names, in its types. They must
                live until the run has ended; PyTorch sees to that on the same stream.

        Returns:
            New tensors on the GPU, by the engine's names.

        Raises:
            EngineError: a shape is outside of the profile, or the run cannot be queued.
        """
        for name, tensor in inputs.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise self._error(f"does not take {name} of shape {tuple(tensor.shape)}")
            self._context.set_tensor_address(name, tensor.data_ptr())
        results = {}
        for name in self.outputs:
            results[name] = torch.empty(
                tuple(self._context.get_tensor_shape(name)),
                dtype=TORCH_TYPES[self._engine.get_tensor_dtype(name).name],
                device="cuda",
            )
            self._context.set_tensor_address(name, results[name].data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise self._error("cannot be run")
        return results

    def _error(self, text: str) -> EngineError:
        reason = f": {self._log.first}" if self._log.first else ""
        return EngineError(f"{self._name} {text}{reason}")


def chain_on_gpu(
    encoder: LoadedEngine, second: LoadedEngine, **given: Array
) -> Callable[..., Array]:
    """Return both engines as one function of arrays, as `chain`; what flows between stays there."""
    run = chain(encoder, second, **_copied(given))
    # On the default stream TensorRT would wait after each run.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run_on_gpu(pixels: Pixels, **chosen: Array) -> Array:
        with torch.cuda.stream(stream):
            output = run(torch.from_numpy(pixels).cuda(), **_copied(chosen)).cpu()
        result: Array = output.numpy()
        return result

    return run_on_gpu


def _copied(arrays: dict[str, Array]) -> dict[str, Tensor]:
    """Return the arrays as tensors on the GPU."""
    return {name: torch.from_numpy(array).cuda() for name, array in arrays.items()}
