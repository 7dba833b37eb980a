"""Time encoder, head and both, by TensorRT and by PyTorch on the same GPU in the same run.

The engines are built here, as `make model` and `make plans` do it. Inputs are on the device, and
answers are compared with PyTorch in float32 first. Kernels are launched one by one: CUDA graphs,
which the served configs allow, are used on neither side.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ram_triton.bench.figure import Figure, show
from ram_triton.bench.machine import processor
from ram_triton.engines.cuda_device import first_device
from ram_triton.engines.pytorch import run, torch_tagger
from ram_triton.errors import (
    BenchmarkError,
    CheckpointError,
    EngineConfigError,
    EngineError,
    GraphError,
    MachineError,
    PictureError,
)
from ram_triton.graphs.half_precision import HALVES
from ram_triton.model.checkpoint import load_model
from ram_triton.model.noise import published_variant, random_model
from ram_triton.model.variant import BACKBONES
from ram_triton.parity.compare import FLOAT32
from ram_triton.parity.limits import LIMITS
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.layout import DEMO_IMAGES

from experiments.contestants import (
    ENGINES,
    OPENVINO,
    Contestant,
    choose_engine,
    make_engine,
    make_pytorch,
)
from experiments.timing import gpu_clock, measure, processor_clock

BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Row:
    """One part at one batch size: the milliseconds of each contestant, by its name."""

    part: str
    batch: int
    milliseconds: dict[str, Figure]

    def __str__(self) -> str:
        engine, pytorch = self.milliseconds.values()
        cells = [self.part, str(self.batch)]
        for figure in (engine, pytorch):
            cells += [str(figure), show(1000 * self.batch / figure.median)]
        return f"| {' | '.join([*cells, show(pytorch.median / engine.median)])} |"

    def as_dict(self) -> dict:
        """Return it for JSON."""
        figures = {name: figure.as_dict() for name, figure in self.milliseconds.items()}
        return {"part": self.part, "batch": self.batch, "milliseconds": figures}


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, print a table; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        report(arguments)
    except (
        CheckpointError,
        PictureError,
        EngineError,
        EngineConfigError,
        MachineError,
        GraphError,
        BenchmarkError,
    ) as error:
        print(f"measure_gpu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("measure_gpu: interrupted", file=sys.stderr)
        return 130
    return 0


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--engine",
        choices=ENGINES,
        help="default: tensorrt, or where it is missing tensorrt_rtx. openvino tries this program "
        "on the processor, in float32 on both sides: no figures of a GPU",
    )
    add("--checkpoint", type=Path, metavar="FILE", help="default: noise, of the sizes below")
    add("--backbone", choices=BACKBONES, default="swin_l")
    add("--image-size", type=int, choices=(224, 384), default=384)
    add("--tags", type=int, default=4585)
    add("--precision", choices=HALVES, default="float16", help="default: %(default)s")
    add(
        "--batches",
        type=positive,
        nargs="+",
        default=BATCHES,
        metavar="SIZE",
        help="default: 1 2 4 8 16 32",
    )
    add("--images", type=Path, default=DEMO_IMAGES, metavar="DIR")
    add("--repeats", type=positive, default=7, help="turns of each (default: %(default)s)")
    add("--seconds", type=float, default=0.5, help="of each turn (default: %(default)s)")
    add("--warm-up", type=float, default=2.0, metavar="SECONDS", help="default: %(default)s")
    add("--eager", action="store_true", help="leave PyTorch uncompiled")
    add("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args(command_line)


def positive(text: str) -> int:
    """Read a number of something.

    Raises:
        argparse.ArgumentTypeError: it is none, or there is nothing of it.
    """
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")


def report(arguments: argparse.Namespace) -> None:
    """Print the table, and write the JSON once all of it is measured."""
    if arguments.json:
        require_writable(arguments.json)  # before anything that takes long
    engine = arguments.engine or choose_engine()
    on_gpu = engine != OPENVINO
    device = first_device().name if on_gpu else processor()
    if arguments.checkpoint:
        model = load_model(arguments.checkpoint)
    else:
        sizes = arguments.backbone, arguments.image_size, arguments.tags
        model = random_model(published_variant(*sizes))
    variant = str(model.variant)
    pictures = np.concatenate(list(picture_batches(arguments.images, model.variant.image_size)))
    expected = run(torch_tagger(model), np.split(pictures, len(pictures)))
    with tempfile.TemporaryDirectory() as folder:
        fast = make_engine(engine, model, arguments.precision, Path(folder))
    precision = getattr(torch, arguments.precision) if on_gpu else torch.float32
    pytorch = make_pytorch(model, precision, "cuda" if on_gpu else "cpu", not arguments.eager)
    print(f"{variant}, {device}\n")
    print(
        f"| part | batch | {fast.name}: ms | images/s | {pytorch.name}: ms | images/s "
        "| times faster |\n" + "|---" * 7 + "|"
    )
    limit = (LIMITS[arguments.precision] if on_gpu else FLOAT32).logit_difference
    differences = {fast.name: 0.0, pytorch.name: 0.0}
    rows = []
    with _stream(on_gpu), torch.inference_mode():
        for batch in arguments.batches:
            chosen = np.arange(batch) % len(pictures)
            pixels = torch.from_numpy(pictures[chosen]).to("cuda" if on_gpu else "cpu")
            for contestant in (fast, pytorch):
                off = difference(contestant, pixels, expected[chosen])
                differences[contestant.name] = max(differences[contestant.name], off)
            if not differences[fast.name] <= limit:  # so that NaN fails too
                raise BenchmarkError(
                    f"{fast.name}: a logit is off by {differences[fast.name]:.2g} in a batch of "
                    f"{batch}, the limit is {limit:g}"
                )
            for row in measure_batch(fast, pytorch, pixels, on_gpu, arguments):
                print(row, flush=True)
                rows.append(row)
    print(
        "\nMilliseconds: the median of "
        f"{arguments.repeats} turns of {arguments.seconds:g} s, lowest and highest beside it."
    )
    for name, off in differences.items():
        print(f"{name}: largest logit difference from float32 {off:.2g}")
    if arguments.json:
        write_json(
            arguments.json,
            {
                "device": device,
                "variant": variant,
                "repeats": arguments.repeats,
                "largest_logit_difference": differences,
                "rows": [row.as_dict() for row in rows],
            },
        )


def difference(contestant: Contestant, pixels: torch.Tensor, expected: np.ndarray) -> float:
    """Return how far its logits are from PyTorch's in float32, at most.

    Raises:
        BenchmarkError: PyTorch cannot compile the model here.
    """
    try:
        logits = contestant.tag(pixels).float().cpu().numpy()
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchmarkError(
            f"torch.compile fails here, --eager leaves it out: {reason}"
        ) from error
    return float(np.abs(logits - expected).max())


def measure_batch(
    fast: Contestant,
    pytorch: Contestant,
    pixels: torch.Tensor,
    on_gpu: bool,
    arguments: argparse.Namespace,
) -> Iterator[Row]:
    """Yield the rows of one batch size: the encoder, the head, both."""
    clock = gpu_clock if on_gpu else processor_clock
    contestants = {each.name: (each, each.encode(pixels)) for each in (fast, pytorch)}
    for part in ("encoder", "head", "both"):
        ways = {}
        for name, (each, embeds) in contestants.items():
            ways[name] = {
                "encoder": lambda each=each: each.encode(pixels),
                "head": lambda each=each, embeds=embeds: each.recognise(embeds),
                "both": lambda each=each: each.tag(pixels),
            }[part]
        figures = measure(ways, clock, arguments.repeats, arguments.seconds, arguments.warm_up)
        yield Row(part, len(pixels), figures)


def require_writable(path: Path) -> None:
    """Check that a file can be written.

    Raises:
        BenchmarkError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written ({error.strerror})") from error
    if path.is_dir():
        raise BenchmarkError(f"{path}: is a folder")


def write_json(path: Path, contents: dict) -> None:
    """Write the figures, at once or not at all.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written ({error.strerror})") from error


def _stream(on_gpu: bool) -> contextlib.AbstractContextManager:
    """A stream of its own: on the default one TensorRT would wait after each run."""
    return torch.cuda.stream(torch.cuda.Stream()) if on_gpu else contextlib.nullcontext()


if __name__ == "__main__":
    sys.exit(main())
