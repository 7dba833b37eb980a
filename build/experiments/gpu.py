"""Time encoder, head and both, by TensorRT and by PyTorch on the same GPU in the same run.

The engines are built here, as `make model` and `make plans` do it. Inputs are on the device, and
answers are compared with PyTorch in float32 first. Kernels are launched one by one: CUDA graphs,
which the served configs allow, are used on neither side.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import openvino
import torch
from ram_triton.arguments import not_negative, positive
from ram_triton.bench.machine import processor
from ram_triton.bench.measurement import (
    Measurement,
    Run,
    processor_clock,
    three_digits,
    time_interleaved,
)
from ram_triton.cli import run_module
from ram_triton.engines.openvino import CompiledGraph
from ram_triton.engines.tagger import tag_all, torch_tagger
from ram_triton.engines.tensorrt import RTX, TENSORRT, Network, load_tensorrt
from ram_triton.engines.tensorrt_runner import LoadedEngine, require_cuda
from ram_triton.errors import BenchmarkError, EngineError, ParityError
from ram_triton.files import require_writable_file, write_atomically
from ram_triton.gpus import first_gpu
from ram_triton.graphs.export import FoldedHead, export_model
from ram_triton.graphs.half_precision import HALVES, halve
from ram_triton.model.checkpoint import load_model, random_model
from ram_triton.model.ram import RAM
from ram_triton.model.variant import published_variant
from ram_triton.parity.answers import find_wrong_logit
from ram_triton.parity.limits import FLOAT32_LIMITS, HALF_LIMITS
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.configs import EngineConfig
from ram_triton.repository.layout import DEFAULT_REPOSITORY, DEMO_IMAGES, ENCODER, HALF_GRAPH, HEAD
from torch import Tensor, nn

OPENVINO = "openvino"
ENGINES = (TENSORRT, RTX, OPENVINO)
TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
PARTS = ("encoder", "head", "both")
SIZES = ("swin_l", 384, 4585)  # of a random model: backbone, pixels, tags
BATCHES = (1, 2, 4, 8, 16, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--engine",
        choices=ENGINES,
        help="default: tensorrt, or tensorrt_rtx if that is missing. openvino tries this script "
        "on the processor, in float32 on both sides: no figures of a GPU",
    )
    add("--checkpoint", type=Path, metavar="FILE", help="default: random, of RAM's own size")
    add("--precision", choices=HALVES, default="float16", help="default: %(default)s")
    add(
        "--batches",
        type=positive,
        nargs="+",
        default=BATCHES,
        metavar="SIZE",
        help="default: 1 2 4 8 16 32",
    )
    add("--repeats", type=positive, default=7, help="rounds (default: %(default)s)")
    add(
        "--seconds",
        type=not_negative,
        default=0.5,
        help="seconds per side and round (default: %(default)s)",
    )
    add(
        "--warm-up",
        type=not_negative,
        default=2.0,
        metavar="SECONDS",
        help="default: %(default)s",
    )
    add("--eager", action="store_true", help="leave PyTorch uncompiled")
    add("--json", type=Path, metavar="FILE", help="file for all figures")


@dataclass(frozen=True)
class Side:
    """One way to compute the model, in its two parts.

    Attributes:
        name: for the table, with version and precision.
        encode: (batch, size, size, 3) uint8 to image embeddings, in the side's own type.
        recognise: such embeddings to logits (batch, tags).
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    recognise: Callable[[Tensor], Tensor]

    def tag(self, pixels: Tensor) -> Tensor:
        """Do both."""
        return self.recognise(self.encode(pixels))

    def part(self, part: str, pixels: Tensor) -> Run:
        """Return what runs one of `PARTS`."""
        if part == "encoder":
            return lambda: self.encode(pixels)
        if part == "both":
            return lambda: self.tag(pixels)
        embeds = self.encode(pixels)
        return lambda: self.recognise(embeds)


@dataclass(frozen=True)
class Row:
    """One part at one batch size: the milliseconds of each side, by its name."""

    part: str
    batch: int
    milliseconds: dict[str, Measurement]

    def __str__(self) -> str:
        engine, pytorch = self.milliseconds.values()
        cells = [self.part, str(self.batch)]
        for taken in (engine, pytorch):
            cells += [str(taken), three_digits(1000 * self.batch / taken.median)]
        return f"| {' | '.join([*cells, three_digits(pytorch.median / engine.median)])} |"

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        taken = {name: each.as_dict() for name, each in self.milliseconds.items()}
        return {"part": self.part, "batch": self.batch, "milliseconds": taken}


def run(arguments: argparse.Namespace) -> None:
    """Print the table, and write the JSON after all of it is measured."""
    if arguments.json:
        require_writable_file(arguments.json)
    engine = arguments.engine or choose_engine()
    on_gpu = engine != OPENVINO
    where = first_gpu().name if on_gpu else processor()
    own = arguments.checkpoint
    model = load_model(own) if own else random_model(published_variant(*SIZES))
    variant = str(model.variant)
    pictures = np.concatenate(list(picture_batches(DEMO_IMAGES, model.variant.image_size)))
    expected = tag_all(torch_tagger(model), np.split(pictures, len(pictures)))
    with tempfile.TemporaryDirectory() as folder:
        fast = make_engine(engine, model, arguments.precision, Path(folder))
    precision = getattr(torch, arguments.precision) if on_gpu else torch.float32
    pytorch = make_pytorch(model, precision, "cuda" if on_gpu else "cpu", not arguments.eager)
    print(f"{variant}, {where}\n")
    print(
        f"| part | batch | {fast.name}: ms | images/s | {pytorch.name}: ms | images/s "
        "| times faster |\n" + "|---" * 7 + "|"
    )
    limit = (HALF_LIMITS[arguments.precision] if on_gpu else FLOAT32_LIMITS).logit_difference
    differences = {fast.name: 0.0, pytorch.name: 0.0}
    rows = []
    with stream(on_gpu), torch.inference_mode():
        for batch in arguments.batches:
            chosen = np.arange(batch) % len(pictures)
            pixels = torch.from_numpy(pictures[chosen]).to("cuda" if on_gpu else "cpu")
            for side in (fast, pytorch):
                logits = logits_of(side, pixels)
                wrong = find_wrong_logit(expected[chosen], logits, limit)
                if wrong and side is fast:
                    raise ParityError(f"{side.name}: in a batch of {batch} {wrong}")
                off = float(np.abs(logits - expected[chosen]).max())
                differences[side.name] = max(differences[side.name], off)
            for row in measure_batch(fast, pytorch, pixels, on_gpu, arguments):
                print(row)
                rows.append(row)
    print(
        f"\nMilliseconds: the median of {arguments.repeats} rounds of {arguments.seconds:g} s, "
        "with the lowest and the highest."
    )
    for name, off in differences.items():
        print(f"{name}: largest logit difference from float32 {off:.2g}")
    if arguments.json:
        contents = {
            "device": where,
            "variant": variant,
            "repeats": arguments.repeats,
            "largest_logit_difference": differences,
            "rows": [row.as_dict() for row in rows],
        }
        write_atomically(arguments.json, json.dumps(contents, indent=2) + "\n")


def logits_of(side: Side, pixels: Tensor) -> np.ndarray:
    """Return the logits of pixels, float32 (batch, tags).

    Raises:
        BenchmarkError: PyTorch cannot compile the model here.
    """
    try:
        return side.tag(pixels).float().cpu().numpy()
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchmarkError(
            f"torch.compile fails here, --eager leaves it out: {reason}"
        ) from error


def measure_batch(
    fast: Side, pytorch: Side, pixels: Tensor, on_gpu: bool, arguments: argparse.Namespace
) -> Iterator[Row]:
    """Yield the rows of one batch size: the encoder, the head, both."""
    for part in PARTS:
        taken = time_interleaved(
            {side.name: side.part(part, pixels) for side in (fast, pytorch)},
            arguments.repeats,
            np.random.default_rng(0),
            clock=gpu_clock if on_gpu else processor_clock,
            seconds=arguments.seconds,
            warm_up=arguments.warm_up,
        )
        yield Row(part, len(pixels), taken)


def gpu_clock(run: Run, times: int) -> float:
    """Time what is queued on PyTorch's current stream, from the GPU's start to its end of it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()  # what was queued before is not counted
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000  # from milliseconds


def stream(on_gpu: bool) -> contextlib.AbstractContextManager[object]:
    """Return a stream of its own: on the default one TensorRT would wait after each run."""
    return torch.cuda.stream(torch.cuda.Stream()) if on_gpu else contextlib.nullcontext()


def choose_engine() -> str:
    """Return the first TensorRT that is installed, Triton's own before RTX.

    Raises:
        EngineError: there is none.
    """
    try:
        load_tensorrt(TENSORRT)
    except EngineError:
        load_tensorrt(RTX)
        return RTX
    return TENSORRT


def make_engine(engine: str, model: RAM, precision: str, folder: Path) -> Side:
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
        encode, recognise = (run_by_openvino(path) for path in paths)
        version = openvino.get_version().split("-")[0]
        return Side(f"OpenVINO {version}, float32", encode, recognise)
    require_cuda()
    trt = load_tensorrt(engine)
    encoder, head = (run_by_tensorrt(trt, path, precision) for path in paths)
    return Side(
        f"{TITLES[engine]} {trt.__version__}, {precision}",
        lambda pixels: encoder(pixels=pixels)["image_embeds"],
        lambda image_embeds: head(image_embeds=image_embeds)["logits"],
    )


def make_pytorch(model: RAM, precision: torch.dtype, device: str, compiled: bool) -> Side:
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
    return Side(f"PyTorch {torch.__version__}, {name}, {how}", *parts)


def run_by_tensorrt(trt: ModuleType, graph: Path, precision: str) -> LoadedEngine:
    """Build an engine of a float32 graph in half precision, by the served config, and load it."""
    model = graph.parts[-3]
    half = graph.with_name(HALF_GRAPH)
    halve(graph, half, precision)
    config = EngineConfig.read(DEFAULT_REPOSITORY / model / "config.pbtxt")
    network = Network(trt, half)
    config.check(network.bindings)
    engine, _ = network.build(config.profile(network.bindings))
    return LoadedEngine(trt, engine, model)


def run_by_openvino(graph: Path) -> Callable[[Tensor], Tensor]:
    """Compile a graph in float32 for the processor; returns what runs it on one tensor."""
    compiled = CompiledGraph(graph)
    name = compiled.model.input(0).get_any_name()

    def run_graph(tensor: Tensor) -> Tensor:
        first, *_ = compiled(**{name: tensor.numpy()}).values()  # what the next part takes
        return torch.from_numpy(first)

    return run_graph


if __name__ == "__main__":
    sys.exit(run_module("experiments.gpu", sys.modules[__name__]))
