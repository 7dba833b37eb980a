"""Encoder and head, each as a function of tensors on one device: by an engine, and by PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openvino
import torch
from ram_triton.engines.loaded_engine import LoadedEngine, require_cuda
from ram_triton.engines.tensorrt import RTX, TENSORRT, Network, load_tensorrt
from ram_triton.errors import EngineError
from ram_triton.graphs.export import FoldedHead, export_model
from ram_triton.graphs.half_precision import halve
from ram_triton.model.ram import RAM
from ram_triton.repository.configs import EngineConfig
from ram_triton.repository.layout import DEFAULT_REPOSITORY, ENCODER, HEAD
from torch import Tensor, nn

OPENVINO = "openvino"
ENGINES = (TENSORRT, RTX, OPENVINO)
TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}


@dataclass(frozen=True)
class Contestant:
    """One way to compute the model.

    Attributes:
        name: for the table, with version and precision.
        encode: (batch, size, size, 3) uint8 to image embeddings, in the contestant's own type.
        recognise: such embeddings to logits (batch, tags).
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    recognise: Callable[[Tensor], Tensor]

    def tag(self, pixels: Tensor) -> Tensor:
        """Do both."""
        return self.recognise(self.encode(pixels))


def choose_engine() -> str:
    """Return the first TensorRT that is at hand, Triton's own before RTX.

    Raises:
        EngineError: there is none.
    """
    try:
        load_tensorrt(TENSORRT)
    except EngineError:
        load_tensorrt(RTX)
        return RTX
    return TENSORRT


def make_engine(engine: str, model: RAM, precision: str, folder: Path) -> Contestant:
    """Export the model as `make model` does, and build engines as `make plans` does.

    Args:
        engine: one of `ENGINES`; OpenVINO's is float32, on the processor.
        model: in float32, on the processor.
        precision: of the half-precision graphs, for TensorRT.
        folder: an empty one, for the graphs.

    Raises:
        EngineError, EngineConfigError, GraphError: it cannot be built or loaded.
    """
    paths = [folder / path for path in (ENCODER, HEAD)]
    export_model(model, *paths)
    if engine == OPENVINO:
        encode, recognise = (_openvino(path) for path in paths)
        return Contestant(
            f"OpenVINO {openvino.get_version().split('-')[0]}, float32", encode, recognise
        )
    require_cuda()
    trt = load_tensorrt(engine)
    encoder, head = (_tensorrt(trt, path, precision) for path in paths)
    return Contestant(
        f"{TITLES[engine]} {trt.__version__}, {precision}",
        lambda pixels: encoder(pixels=pixels)["image_embeds"],
        lambda image_embeds: head(image_embeds=image_embeds)["logits"],
    )


def make_pytorch(model: RAM, precision: torch.dtype, device: str, compiled: bool) -> Contestant:
    """Move the model to a device, into a precision, and have PyTorch compile it if asked to.

    As in the exported graphs, what depends on no image is computed once. Each batch size is
    compiled for itself.
    """
    model = model.to(device, precision)
    with torch.inference_mode():
        parts: list[nn.Module] = [model.encoder, FoldedHead(model.head, model.label_embed)]
    if compiled:
        parts = [torch.compile(part, dynamic=False) for part in parts]
    name = str(precision).removeprefix("torch.")
    how = "compiled" if compiled else "not compiled"
    return Contestant(f"PyTorch {torch.__version__}, {name}, {how}", *parts)


def _tensorrt(trt: object, graph: Path, precision: str) -> LoadedEngine:
    model = graph.parts[-3]
    half = graph.with_name("half.onnx")
    halve(graph, half, precision)
    config = EngineConfig.read(DEFAULT_REPOSITORY / model / "config.pbtxt")
    network = Network(trt, half)
    config.check(network.bindings)
    engine, _ = network.build(config.profile(network.bindings))
    return LoadedEngine(trt, engine, model)


def _openvino(graph: Path) -> Callable[[Tensor], Tensor]:
    model = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # The first output is what the next part takes; a copy, as the engine writes over its results.
    return lambda tensor: torch.from_numpy(model(tensor.numpy())[0].copy())
