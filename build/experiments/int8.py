"""Compare INT8 on the CPU with float32 and bfloat16: its speed, and the quality of its tags.

Graphs are exported as `make model` does, and NNCF quantises them by pictures that calibrate: the
demo's, or some that it trained on with `--config`, the file that the model was trained by. With it
their tags are compared with the right ones of the split `test_seen` too.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import openvino
import torch
from ram_triton.arguments import positive
from ram_triton.bench.machine import cores, processor
from ram_triton.bench.measurement import Measurement, markdown_table, time_interleaved
from ram_triton.cli import run_module
from ram_triton.engines.openvino import (
    HINTS,
    PRECISION,
    SERVED,
    CompiledGraph,
    openvino_tagger,
)
from ram_triton.engines.tagger import Tagger
from ram_triton.errors import BenchmarkError
from ram_triton.graphs.export import export_model
from ram_triton.graphs.int8 import quantise, require_nncf
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.layout import DEMO_IMAGES, ENCODER, HEAD
from ram_triton.training.config import read_config
from ram_triton.training.data import Images
from ram_triton.training.evaluate import (
    best_thresholds,
    detect,
    mean_average_precision,
    score,
)
from ram_triton.training.manifest import Sample, read_samples
from ram_triton.vocabulary.tag_lists import read_vocabulary
from torch import Tensor

FLOAT32, BFLOAT16 = "float32", "bfloat16"
SPLIT = "test_seen"  # that is tested on
CALIBRATING = 128  # pictures at most
BATCHES = (1, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE")
    add("--config", type=Path, metavar="FILE.toml", help="the training's settings, for its splits")
    add("--repeats", type=positive, default=5, help="runs per timing (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    require_nncf()
    model = load_model(arguments.checkpoint)
    splits = Splits(arguments.config, model) if arguments.config else None
    if splits:
        pixels = splits.calibration()
    else:
        batches = picture_batches(DEMO_IMAGES, model.variant.image_size)
        pixels = np.concatenate(list(batches))[:CALIBRATING]
    with tempfile.TemporaryDirectory() as folder:
        taggers = make_taggers(model, pixels, Path(folder))
    columns: dict[str, dict[str, object]] = {
        f"images/s, batch of {size}": dict(speed(taggers, pixels, size, arguments.repeats))
        for size in BATCHES
    }
    if splits:
        columns |= quality(taggers, splits)
    print(
        f"{model.variant}, calibrated on {len(pixels)} pictures, on {cores()} cores of "
        f"{processor()}:\n"
    )
    rows = ([name, *(column[name] for column in columns.values())] for name in taggers)
    print("\n".join(markdown_table(["", *columns], rows)))


class Splits:
    """The images that a training's config names, and their right tags."""

    def __init__(self, path: Path, model: RAM) -> None:
        """Read what the config names.

        Raises:
            ConfigError, ManifestError, VocabularyError: it is wrong.
        """
        self.config = read_config(path)
        vocabulary = read_vocabulary(self.config.data.vocabulary)
        self._samples = read_samples(self.config.data, vocabulary.tags, vocabulary.tags_zh)
        self._images = Images(self.config.data.images, model.variant.image_size)
        self._num_tags = model.variant.num_tags

    def split(self, name: str) -> list[Sample]:
        """Return a split's samples; raises BenchmarkError if there are none."""
        if chosen := [sample for sample in self._samples if sample.split == name]:
            return chosen
        raise BenchmarkError(f"no image is in the split '{name}'")

    def calibration(self) -> np.ndarray:
        """Return pixels of training images, from all over the split, (count, S, S, 3) uint8."""
        samples = self.split(self.config.data.training_split)
        chosen = samples[:: max(1, len(samples) // CALIBRATING)][:CALIBRATING]
        return self._images.load_flat([sample.image for sample in chosen]).numpy()

    def score(self, tagger: Tagger, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a split's right tags and a tagger's scores."""

        def tag(pixels: Tensor) -> Tensor:
            return torch.from_numpy(tagger(pixels.numpy()))

        return score(tag, self._num_tags, self.split(name), self._images)


def make_taggers(model: RAM, pixels: np.ndarray, folder: Path) -> dict[str, Tagger]:
    """Return the model in each precision; in bfloat16 only if the processor has it.

    Args:
        model: in float32.
        pixels: pictures that calibrate INT8, (pictures, S, S, 3) uint8.
        folder: an empty one, for the graphs.
    """
    paths = [folder / path for path in (ENCODER, HEAD)]
    export_model(model, *paths)
    core = openvino.Core()
    best = CompiledGraph(paths[1], {}).precision

    def tagger(precision: str, encoder: openvino.Model, head: openvino.Model) -> Tagger:
        return openvino_tagger(encoder, head, {**SERVED, PRECISION: HINTS[precision]})

    taggers = {
        precision: tagger(precision, *map(core.read_model, paths))
        for precision in (FLOAT32, BFLOAT16)
        if precision in (FLOAT32, best)
    }
    encode = CompiledGraph(paths[0])
    embeds = [encode(pixels=row[None])["image_embeds"] for row in pixels]
    encoder = quantise(core.read_model(paths[0]), [row[None] for row in pixels])
    head = quantise(core.read_model(paths[1]), embeds)
    return taggers | {f"INT8, the rest {best}": tagger(best, encoder, head)}


def speed(
    taggers: dict[str, Tagger], pixels: np.ndarray, batch: int, repeats: int
) -> dict[str, Measurement]:
    """Return each one's images per second."""
    chosen = pixels[np.arange(batch) % len(pixels)]
    ways = {name: partial(tagger, chosen) for name, tagger in taggers.items()}
    taken = time_interleaved(ways, repeats, np.random.default_rng(0))
    return {name: each.map(lambda ms: 1000 * batch / ms) for name, each in taken.items()}


def quality(taggers: dict[str, Tagger], splits: Splits) -> dict[str, dict[str, object]]:
    """Return columns of mAP and F1 on SPLIT, at thresholds that float32 chose on validation."""
    validation = splits.config.data.validation_split
    thresholds = best_thresholds(*splits.score(taggers[FLOAT32], validation))
    columns: dict[str, dict[str, object]] = {"mAP": {}, "F1, micro": {}, "F1, macro": {}}
    for precision, tagger in taggers.items():
        targets, scores = splits.score(tagger, SPLIT)
        found = detect(targets, scores > thresholds)
        figures = mean_average_precision(targets, scores), found["micro"].f1, found["macro"].f1
        for column, figure in zip(columns.values(), figures, strict=True):
            column[precision] = f"{figure:.4f}"
    return {f"{title}, {SPLIT}": column for title, column in columns.items()}


if __name__ == "__main__":
    sys.exit(run_module("experiments.int8", sys.modules[__name__]))
