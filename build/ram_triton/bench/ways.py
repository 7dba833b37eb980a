"""The ways to tag pictures that are compared: PyTorch, the engine, and Triton through gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import openvino
import torch
import tritonclient.grpc as grpc
from ram_client.protocol import tag_request
from tritonclient.grpc.model_config_pb2 import ModelConfig

from ram_triton.bench.answers import Reference
from ram_triton.bench.compute import INT8
from ram_triton.bench.contest import Competitor
from ram_triton.bench.steps import Statistics
from ram_triton.engines.loaded_engine import LoadedEngine, engine_tagger
from ram_triton.engines.pytorch import Tagger
from ram_triton.engines.tensorrt import TENSORRT, load_tensorrt
from ram_triton.errors import EngineError, ParityError
from ram_triton.model.ram import RAM
from ram_triton.repository import layout
from ram_triton.repository.configs import EngineConfig

PYTORCH, ENGINE, GRPC = "PyTorch", "engine alone", "Triton through gRPC"
PRECISION = "INFERENCE_PRECISION_HINT"
# OpenVINO's properties that the CPU profile may set.
PROPERTIES = (PRECISION, "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS")
NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
TIMEOUT = 600.0  # seconds: a full-size model on few cores takes its time for a batch


def pytorch_tagger(model: RAM, device: str) -> Tagger:
    """Return the model in PyTorch as a function of pixels, on `cuda` or `cpu`."""
    model = model.to(device)

    def tag(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels).to(device)).cpu().numpy()

    return tag


def load_engine(repository: Path, device: str) -> tuple[Tagger, str]:
    """Load what the server runs: plans on `cuda`, the graphs that the CPU profile names on `cpu`.

    Returns:
        The engine as a function of pixels, and what it computes in.

    Raises:
        EngineError: TensorRT is missing, a plan cannot be loaded, or a graph is missing.
        EngineConfigError: a config cannot be read.
    """
    graphs = (layout.ENCODER, layout.HEAD)
    if device == "cuda":
        plans = [repository / graph.with_name(layout.PLAN) for graph in graphs]
        trt = load_tensorrt(TENSORRT)
        return engine_tagger(*(LoadedEngine(trt, p.read_bytes(), str(p)) for p in plans)), "plans"
    configs = [_cpu_config(repository / graph) for graph in graphs]
    encoder, head = (
        _compile(repository / graph.parent / config.default_model_filename, config)
        for graph, config in zip(graphs, configs, strict=True)
    )

    def tag(pixels: np.ndarray) -> np.ndarray:
        image_embeds = encoder(pixels)["image_embeds"]
        return head(image_embeds)["logits"].copy()  # the next answer is written into its buffer

    if layout.INT8_ENCODER.name in [config.default_model_filename for config in configs]:
        return tag, INT8
    return tag, NAMES[encoder.get_property(PRECISION).get_type_name()]


def _cpu_config(graph: Path) -> ModelConfig:
    return EngineConfig.read(graph.parents[1] / "configs" / "cpu.pbtxt").model


def _compile(graph: Path, config: ModelConfig) -> openvino.CompiledModel:
    """Compile a graph with the properties that the server's config sets.

    Raises:
        EngineError: there is no such graph.
    """
    if not graph.is_file():
        raise EngineError(f"{graph}: is missing, but configs/cpu.pbtxt names it")
    properties = {
        name: config.parameters[name].string_value
        for name in PROPERTIES
        if name in config.parameters
    }
    return openvino.Core().compile_model(graph, "CPU", properties)


def tagger_competitor(
    way: str, precision: str, tagger: Tagger, pixels: np.ndarray, batch: int, reference: Reference
) -> Competitor:
    """Let a tagger take part, with pixels that are decoded already."""
    return Competitor(
        way,
        precision,
        batch,
        1,
        len(pixels),
        ask=lambda numbers: tagger(pixels[list(numbers)]),
        check=lambda numbers, logits: reference.check_logits(way, numbers, logits),
    )


@dataclass
class Served(Competitor):
    """Triton, whose own statistics of the counted turns are kept.

    Attributes:
        triton: the connection.
        turns: the statistics of each round.
    """

    triton: grpc.InferenceServerClient = field(kw_only=True, repr=False)
    turns: list[Statistics] = field(default_factory=list, repr=False)

    def run(self, seconds: float) -> None:
        """As any competitor's."""
        before = Statistics.read(self.triton)
        super().run(seconds)
        self.turns.append(Statistics.read(self.triton) - before)

    def forget(self) -> None:
        """Drop what was measured so far."""
        super().forget()
        self.turns.clear()

    @property
    def statistics(self) -> Statistics:
        """Those of all rounds together."""
        return reduce(add, self.turns)


@dataclass(frozen=True)
class Client:
    """Asks a server for tags, as clients do, with encoded pictures.

    Attributes:
        triton: the connection.
        pictures: encoded.
    """

    triton: grpc.InferenceServerClient
    pictures: Sequence[bytes]

    def ask(self, numbers: Sequence[int]) -> grpc.InferResult:
        """Send one request and wait for its answer."""
        request = tag_request([self.pictures[number] for number in numbers])
        return self.triton.infer(**request, client_timeout=TIMEOUT)

    def logits(self) -> np.ndarray:
        """Ask for the logits of each picture, one by one: (pictures, tags) float32."""
        wanted = [grpc.InferRequestedOutput("logits")]
        requests = [tag_request([picture]) | {"outputs": wanted} for picture in self.pictures]
        answers = [self.triton.infer(**each, client_timeout=TIMEOUT) for each in requests]
        return np.concatenate([answer.as_numpy("logits") for answer in answers])

    def competitor(
        self, precision: str, batch: int, concurrency: int, reference: Reference
    ) -> "Served":
        """Let the server take part, with requests of `batch` pictures."""

        def check(numbers: Sequence[int], answer: grpc.InferResult) -> None:
            outputs = {
                name: answer.as_numpy(name) for name in ("tags", "scores", "tag_ids", "count")
            }
            reference.check_tags(GRPC, numbers, outputs)

        return Served(
            GRPC,
            precision,
            batch,
            concurrency,
            len(self.pictures),
            self.ask,
            check,
            triton=self.triton,
        )


def preprocessor_competitor(
    triton: grpc.InferenceServerClient, name: str, encoded: bytes, pixels: np.ndarray, clients: int
) -> Competitor:
    """Let the served preprocessor decode one picture again and again, for several clients.

    Args:
        triton: the connection.
        name: of the picture.
        encoded: the picture.
        pixels: what it has to become, (size, size, 3) uint8.
        clients: how many ask at once.
    """
    image = grpc.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[encoded]], np.object_))

    def check(_: Sequence[int], answer: grpc.InferResult) -> None:
        if not np.array_equal(answer.as_numpy("pixels")[0], pixels):
            raise ParityError(f"ram_preprocess: wrong pixels of {name}")

    return Competitor(
        f"ram_preprocess, {name}",
        "uint8",
        1,
        clients,
        1,
        lambda _: triton.infer("ram_preprocess", [image], client_timeout=TIMEOUT),
        check,
    )
