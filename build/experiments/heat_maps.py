"""Measure how well heat maps show where each tag's thing is, by several ways to make them.

Pictures with known places are composites of two to four drawings that training never saw (of the
data set of `make runs/demo/features.npy`), or a user's own with boxes in COCO's format. The maps
are of the tags that are returned and right. Chance is a map of random numbers; contrast is where
the picture varies most, whatever the tag.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from ram_client.tag import box_of, enlarge
from ram_triton.arguments import positive
from ram_triton.bench.measurement import markdown_table
from ram_triton.cli import run_module
from ram_triton.errors import BenchmarkError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.vocabulary.tag_lists import read_vocabulary
from torch import Tensor

from experiments.attention import BASELINES, Seen, attention_of_last_stage, ways_of_head
from experiments.scenes import BACKGROUNDS, Scene, annotated, composites

ROOT = Path(__file__).resolve().parents[2]
MASK_THRESHOLDS = (0.3, 0.5, 0.7)  # of a map's maximum
COLUMNS = (
    "points at it",
    "weight in its box",
    "AP of its mask",
    *(f"IoU over {threshold:g}" for threshold in MASK_THRESHOLDS),
    "IoU of the box",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    demo, data = ROOT / "build" / "demo", ROOT / "runs" / "demo" / "data"
    weights = demo / "weights" / "ram_demo.safetensors"
    add = parser.add_argument
    add("--checkpoint", type=Path, default=weights, metavar="FILE", help="(default: the demo's)")
    add(
        "--vocabulary",
        type=Path,
        default=demo / "vocabulary",
        metavar="DIR",
        help="its tag lists (default: the demo's)",
    )
    add("--data", type=Path, default=data, metavar="DIR", help="drawings (default: %(default)s)")
    add("--scenes", type=positive, default=800, help="composites of each kind (%(default)s)")
    add(
        "--coco",
        type=Path,
        nargs=2,
        metavar=("FILE.json", "IMAGES"),
        help="instead of composites: boxes in COCO's format, and the folder of their pictures",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print a table per kind of picture."""
    model = load_model(arguments.checkpoint)
    vocabulary = read_vocabulary(arguments.vocabulary, model.variant.num_tags)
    size = model.variant.image_size
    if arguments.coco:
        kinds = {"annotated pictures": annotated(*arguments.coco, vocabulary, size)}
    else:
        kinds = {
            f"backgrounds {name} ({what})": composites(
                arguments.data, vocabulary, size, arguments.scenes, name
            )
            for name, what in BACKGROUNDS.items()
        }
    thresholds = torch.from_numpy(vocabulary.thresholds)
    for kind, scenes in kinds.items():
        figures = measure(model, thresholds, scenes)
        found = len(next(iter(figures.values())).rows)
        if not found:
            raise BenchmarkError(f"{kind}: the model finds none of the things: there is no map")
        print(f"{kind}, {found:,} tags:\n")
        rows = ([name, *map("{:.3f}".format, one.means())] for name, one in figures.items())
        print("\n".join(markdown_table(["map", *COLUMNS], rows)) + "\n", flush=True)


@dataclass
class Figures:
    """What was measured of one way; a row per tag of a picture.

    Attributes:
        rows: one value per column.
    """

    rows: list[list[float]] = field(default_factory=list)

    def add(self, weights: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Measure one map.

        Args:
            weights: (side, side), their sum is positive.
            mask: where the thing is, (size, size).
        """
        size, side = len(mask), len(weights)
        box = extent(mask)
        row, column = np.unravel_index(weights.argmax(), weights.shape)
        cell = size / side
        # A point within half a cell of the box: cells are larger than what they have to hit.
        hit = all(
            edge.start - cell / 2 <= (place + 0.5) * cell <= edge.stop + cell / 2
            for edge, place in zip(box, (row, column), strict=True)
        )
        fine = enlarge(weights, size, size)
        inside = fine[box].sum() / fine.sum()
        shares = fine / fine.max()
        overlaps = [overlap(mask, shares > least) for least in MASK_THRESHOLDS]
        overlaps.append(overlap(filled(size, box), filled(size, box_in_pixels(weights, size))))
        self.rows.append([float(hit), inside, average_precision(mask, fine), *overlaps])

    def means(self) -> NDArray[np.float64]:
        """Return each column's mean."""
        means: NDArray[np.float64] = np.mean(self.rows, axis=0)
        return means


def overlap(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over the union."""
    return float((mask & other).sum() / (mask | other).sum())


def filled(size: int, box: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Return a mask of a box, (size, size)."""
    mask = np.zeros((size, size), bool)
    mask[box] = True
    return mask


def box_in_pixels(weights: NDArray[np.float32], size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the box that the client makes of a map."""
    left, top, right, bottom = (round(edge * size) for edge in box_of(weights))
    return slice(top, bottom), slice(left, right)


def extent(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and the columns that a mask reaches over."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def average_precision(mask: NDArray[np.bool_], weights: NDArray[np.float32]) -> float:
    """Return the mean precision over the mask's pixels, as the threshold falls."""
    right = mask.ravel()[np.argsort(-weights.ravel(), kind="stable")]
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float(precision[right].mean())


def measure(model: RAM, thresholds: Tensor, scenes: Iterable[Scene]) -> dict[str, Figures]:
    """Measure every way on the tags that are found and right."""
    ways = {**ways_of_head(model), **BASELINES}
    figures = {name: Figures() for name in ways}
    side = model.variant.window_size
    with torch.inference_mode(), attention_of_last_stage(model) as last_stage:
        for scene in scenes:
            pixels = torch.tensor(scene.pixels)[None]
            embeds = model.encoder(pixels)
            returned = (model.score(embeds).sigmoid() > thresholds)[0]
            tags = [tag for tag in scene.masks if returned[tag]]
            if not tags:
                continue
            seen = Seen(model, pixels, embeds, tags, list(last_stage))
            for name, way in ways.items():
                for tag, weights in zip(tags, way(seen).numpy(), strict=True):
                    figures[name].add(weights.reshape(side, side), scene.masks[tag])
    return figures


if __name__ == "__main__":
    sys.exit(run_module("experiments.heat_maps", sys.modules[__name__]))
