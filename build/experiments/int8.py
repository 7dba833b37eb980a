"""Compare INT8 on the CPU with float32 and bfloat16: how fast it is, and what its tags are worth.

Graphs are exported as `make model` does, and quantised by NNCF after pictures that calibrate them.
All are timed by turns. With `--config`, the file that the model was trained by, their tags are
compared with the right ones of a test split.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import torch
from ram_triton.bench.figure import Figure, take_turns
from ram_triton.bench.machine import cores, processor
from ram_triton.cli import guarded
from ram_triton.engines.pytorch import Tagger
from ram_triton.errors import BenchmarkError
from ram_triton.graphs.export import export_model
from ram_triton.graphs.int8 import quantise, require_nncf
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.layout import DEMO_IMAGES, ENCODER, HEAD
from ram_triton.training.config import Config, read_config
from ram_triton.training.data import Images
from ram_triton.training.evaluate import (
    best_thresholds,
    detect,
    mean_average_precision,
    score,
)
from ram_triton.training.manifest import Sample, read_samples
from ram_triton.training.run_inputs import read_tags
from rich.console import Console
from rich.table import Table
from torch import Tensor

HINT = "INFERENCE_PRECISION_HINT"
FLOAT32 = "float32"
NAMES = {"f32": FLOAT32, "bf16": "bfloat16"}


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, print a table; returns the exit status."""
    arguments = parse_arguments(command_line)
    return guarded("measure_int8", lambda: report(arguments))


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE")
    add("--config", type=Path, metavar="FILE.toml", help="of the model's training, for its splits")
    add("--split", default="test_seen", metavar="NAME", help="to test on (default: %(default)s)")
    add(
        "--images",
        type=Path,
        default=DEMO_IMAGES,
        metavar="DIR",
        help="pictures that calibrate (default: with --config some that it trained on, else the "
        "demo's)",
    )
    add(
        "--calibrate",
        type=int,
        default=128,
        metavar="COUNT",
        help="how many pictures calibrate at most (default: %(default)s)",
    )
    add("--batches", type=int, nargs="+", default=[1, 8], metavar="SIZE", help="default: 1 8")
    add("--repeats", type=int, default=5, help="of each timing (default: %(default)s)")
    return parser.parse_args(command_line)


@dataclass(frozen=True)
class Splits:
    """The images that a config tells of, and their right tags.

    Attributes:
        config: the training's.
        samples: all of them.
        images: loads them.
        num_tags: of the vocabulary.
    """

    config: Config
    samples: list[Sample]
    images: Images
    num_tags: int

    @classmethod
    def read(cls, path: Path, model: RAM) -> "Splits":
        """Read what a training config tells of.

        Raises:
            ConfigError, ManifestError, VocabularyError: it is wrong.
        """
        config = read_config(path)
        samples = read_samples(config.data, *read_tags(config.data.vocabulary))
        images = Images(config.data.images, model.variant.image_size)
        return cls(config, samples, images, model.variant.num_tags)

    def split(self, name: str) -> list[Sample]:
        """Return a split's samples; raises BenchmarkError where there are none."""
        if chosen := [sample for sample in self.samples if sample.split == name]:
            return chosen
        raise BenchmarkError(f"no image is of the split '{name}'")

    def calibration(self, count: int) -> np.ndarray:
        """Return pixels of training images, from all over the split, (count, S, S, 3) uint8."""
        samples = self.split(self.config.data.training_split)
        chosen = samples[:: max(1, len(samples) // count)][:count]
        return self.images.load_flat([sample.image for sample in chosen]).numpy()

    def score(self, tagger: Tagger, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a split's right tags and a tagger's scores."""

        def tag(pixels: Tensor) -> Tensor:
            return torch.from_numpy(tagger(pixels.numpy()))

        return score(tag, self.num_tags, self.split(name), self.images)


def report(arguments: argparse.Namespace) -> None:
    """Print what was measured."""
    require_nncf()
    model = load_model(arguments.checkpoint)
    splits = Splits.read(arguments.config, model) if arguments.config else None
    if splits:
        pixels = splits.calibration(arguments.calibrate)
    else:
        batches = picture_batches(arguments.images, model.variant.image_size)
        pixels = np.concatenate(list(batches))[: arguments.calibrate]
    with tempfile.TemporaryDirectory() as folder:
        taggers = make_taggers(model, pixels, Path(folder))
    table = Table("", *(f"images/s, batch of {size}" for size in arguments.batches))
    columns = [speed(taggers, pixels, size, arguments.repeats) for size in arguments.batches]
    if splits:
        for name in ("mAP", "F1, micro", "F1, macro"):
            table.add_column(f"{name}, {arguments.split}")
        columns += worth(taggers, splits, arguments.split)
    for name in taggers:
        table.add_row(name, *(str(column[name]) for column in columns))
    print(
        f"{model.variant}, calibrated on {len(pixels)} pictures, on {cores()} cores of "
        f"{processor()}:"
    )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def make_taggers(model: RAM, pixels: np.ndarray, folder: Path) -> dict[str, Tagger]:
    """Return the model in each precision; bfloat16 only where the processor has it.

    Args:
        model: in float32.
        pixels: pictures that calibrate INT8, (pictures, S, S, 3) uint8.
        folder: an empty one, for the graphs.
    """
    paths = [folder / path for path in (ENCODER, HEAD)]
    export_model(model, *paths)
    core = openvino.Core()
    best = core.compile_model(paths[1], "CPU").get_property(HINT).get_type_name()
    float32 = compile_pair(*map(core.read_model, paths), "f32")
    taggers = {FLOAT32: float32.tag}
    if best == "bf16":
        taggers[NAMES[best]] = compile_pair(*map(core.read_model, paths), best).tag
    embeds = [float32.encode(row[None]) for row in pixels]
    encoder = quantise(core.read_model(paths[0]), [row[None] for row in pixels])
    head = quantise(core.read_model(paths[1]), embeds)
    name = f"INT8, the rest {NAMES.get(best, best)}"
    return taggers | {name: compile_pair(encoder, head, best).tag}


@dataclass(frozen=True)
class Pair:
    """Encoder and head, compiled for the CPU."""

    encoder: openvino.CompiledModel
    head: openvino.CompiledModel

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Return a copy of the image embeddings: the engine writes over its results."""
        return self.encoder(pixels)["image_embeds"].copy()

    def tag(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits of pixels."""
        return self.head(self.encoder(pixels)["image_embeds"])["logits"].copy()


def compile_pair(encoder: openvino.Model, head: openvino.Model, precision: str) -> Pair:
    """Compile both graphs as the CPU profile does, with OpenVINO's name of a precision."""
    properties = {HINT: precision, "PERFORMANCE_HINT": "LATENCY"}
    return Pair(*(openvino.compile_model(each, "CPU", properties) for each in (encoder, head)))


def speed(
    taggers: dict[str, Tagger], pixels: np.ndarray, batch: int, repeats: int
) -> dict[str, Figure]:
    """Return each one's images a second."""
    chosen = pixels[np.arange(batch) % len(pixels)]
    ways = {name: lambda tag=tag: tag(chosen) for name, tag in taggers.items()}
    taken = take_turns(ways, repeats, np.random.default_rng(0))
    return {
        name: Figure(tuple(1000 * batch / value for value in figure.values))
        for name, figure in taken.items()
    }


def worth(taggers: dict[str, Tagger], splits: Splits, name: str) -> list[dict[str, str]]:
    """Return each one's mAP and F1s on a split, at thresholds that float32 chose on validation."""
    validation = splits.config.data.validation_split
    thresholds = best_thresholds(*splits.score(taggers[FLOAT32], validation))
    columns: list[dict[str, str]] = [{}, {}, {}]
    for precision, tagger in taggers.items():
        targets, scores = splits.score(tagger, name)
        found = detect(targets, scores > thresholds)
        figures = mean_average_precision(targets, scores), found["micro"].f1, found["macro"].f1
        for column, figure in zip(columns, figures, strict=True):
            column[precision] = f"{figure:.4f}"
    return columns


if __name__ == "__main__":
    sys.exit(main())
