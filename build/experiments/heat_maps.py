"""Measure how well heat maps show where each tag's thing is, by several ways to make them.

Pictures with known places are composites of two to four drawings that training never saw (of the
data set of `make runs/demo/features.npy`), or a user's own with boxes in COCO's format. The maps
are of the tags that are returned and right. Chance is a map of random numbers; contrast is where
the picture varies most, whatever the tag.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demo.dataset import load_dataset
from demo.splits import TEST_SEEN
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from ram_client.tag import box_of, enlarge
from ram_triton.arguments import positive
from ram_triton.bench.measurement import markdown_table
from ram_triton.cli import run_module
from ram_triton.errors import BenchmarkError, FileError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.repository.layout import PROJECT
from ram_triton.server_code import ImageError, Vocabulary, preprocess
from ram_triton.vocabulary.tag_lists import read_vocabulary
from torch import Tensor

from experiments.attention import BASELINES, Seen, attention_of_last_stage, ways_of_head

DEMO = PROJECT / "build" / "demo"
WEIGHTS = DEMO / "weights" / "ram_demo.safetensors"
DATA = PROJECT / "runs" / "demo" / "data"
FEWEST, MOST = 2, 4  # things in a composite
SMALLEST, LARGEST = 0.22, 0.5  # side of a thing, as a share of the picture's
ATTEMPTS = 100  # at a place for a thing
BACKGROUNDS = {
    "as in training": "white, or a colour that varies smoothly",
    "others": "stripes, checks, or blurred noise",
}
MASK_THRESHOLDS = (0.3, 0.5, 0.7)  # of a map's maximum
COLUMNS = (
    "points at it",
    "weight in its box",
    "AP of its mask",
    *(f"IoU over {threshold:g}" for threshold in MASK_THRESHOLDS),
    "IoU of the box",
)

Mask = NDArray[np.bool_]  # (size, size)


@dataclass(frozen=True)
class Scene:
    """A picture, and where in it things are.

    Attributes:
        pixels: RGB, uint8 (size, size, 3).
        masks: by the tag's line in the vocabulary, where what it names is.
    """

    pixels: NDArray[np.uint8]
    masks: Mapping[int, Mask]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--checkpoint", type=Path, default=WEIGHTS, metavar="FILE", help="(default: the demo's)")
    add(
        "--vocabulary",
        type=Path,
        default=DEMO / "vocabulary",
        metavar="DIR",
        help="its tag lists (default: the demo's)",
    )
    add("--data", type=Path, default=DATA, metavar="DIR", help="drawings (default: %(default)s)")
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
        found = len(next(iter(figures.values())))
        if not found:
            raise BenchmarkError(f"{kind}: the model finds none of the things: there is no map")
        print(f"{kind}, {found:,} tags:\n")
        means = {name: np.mean(rows, axis=0) for name, rows in figures.items()}
        table = ([name, *map("{:.3f}".format, mean)] for name, mean in means.items())
        print("\n".join(markdown_table(["map", *COLUMNS], table)) + "\n", flush=True)


def composites(
    data: Path, vocabulary: Vocabulary, size: int, count: int, background: str
) -> Iterator[Scene]:
    """Yield composites of drawings that training never saw, each beside the others.

    Args:
        data: folder of the demo's data set.
        vocabulary: the model's.
        size: side of the pictures in pixels.
        count: how many to make.
        background: one of `BACKGROUNDS`.

    Raises:
        FileError: the data set is not there.
    """
    drawings, manifest = load_dataset(data)
    chosen = [image for image in manifest if image.split == TEST_SEEN and image.tags]
    ids = {name: index for index, name in enumerate(vocabulary.tags)}
    random = np.random.default_rng([size, count, list(BACKGROUNDS).index(background)])
    for _ in range(count):
        canvas = make_background(random, size, background)
        placed: list[tuple[set[int], Mask]] = []
        wanted = random.integers(FEWEST, MOST + 1)
        free = np.ones((size, size), bool)
        for index in random.choice(len(chosen), wanted, replace=False):
            image = chosen[index]
            if place := find_place(random, free):
                left, top, side = place
                free[top : top + side, left : left + side] = False
                drawing = Image.fromarray(np.asarray(drawings[image.image]), "RGBA")
                drawing = drawing.resize((side, side), Image.Resampling.BILINEAR)
                canvas.paste(drawing, (left, top), drawing)
                mask = np.zeros((size, size), bool)
                mask[top : top + side, left : left + side] = np.asarray(drawing)[..., 3] > 127
                if mask.any():
                    placed.append(({ids[tag] for tag in image.tags if tag in ids}, mask))
        yield Scene(np.array(canvas), joined(placed))


def find_place(random: np.random.Generator, free: Mask) -> tuple[int, ...] | None:
    """Return left, top and side of a square that is free, or None if none was found."""
    size = len(free)
    for _ in range(ATTEMPTS):
        side = round(size * random.uniform(SMALLEST, LARGEST))
        left, top = (int(edge) for edge in random.integers(0, size - side + 1, 2))
        if free[top : top + side, left : left + side].all():
            return left, top, side
    return None


def joined(placed: Sequence[tuple[set[int], Mask]]) -> dict[int, Mask]:
    """Return each tag's mask: that of all things that it names."""
    masks: dict[int, Mask] = {}
    for tags, mask in placed:
        for tag in tags:
            masks[tag] = masks[tag] | mask if tag in masks else mask
    return masks


def make_background(random: np.random.Generator, size: int, kind: str) -> Image.Image:
    """Draw a background of one of `BACKGROUNDS`, RGB."""
    colours = random.integers(0, 256, (2, 3), np.uint8)
    if kind == "as in training":
        if random.random() < 0.6:
            return Image.new("RGB", (size, size), "white")
        spread = 128 * random.random() ** 2
        patches = colours[0] + spread * (random.random((4, 4, 3)) - 0.5)
        small = Image.fromarray(patches.clip(0, 255).astype(np.uint8))
        return small.resize((size, size), Image.Resampling.BICUBIC)
    y, x = np.mgrid[:size, :size] // random.integers(size // 16, size // 4)
    pattern = (x % 2, (x + y) % 2)[random.integers(2)]
    if random.random() < 1 / 3:
        noise = Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8))
        return noise.filter(ImageFilter.GaussianBlur(size / 64))
    return Image.fromarray(colours[pattern])


def annotated(
    annotations: Path, images: Path, vocabulary: Vocabulary, size: int
) -> Iterator[Scene]:
    """Yield a user's pictures with the boxes of a file in COCO's format.

    Categories are found in the vocabulary by their names; those that it does not have are left out,
    and so are crowds. Pictures that EXIF turns have to be annotated upright.

    Args:
        annotations: JSON with `images`, `categories` and `annotations`.
        images: folder of the files that it names.
        vocabulary: the model's.
        size: side in pixels that pictures are squashed to.

    Raises:
        FileError: the file is not of this format, or a picture is missing or cannot be read.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        tags = {
            category["id"]: found[0]
            for category in content["categories"]
            if (found := vocabulary.find_english(category["name"]))
        }
        boxes: dict[int, list[tuple[int, list[float]]]] = {}
        for one in content["annotations"]:
            if one["category_id"] in tags and not one.get("iscrowd"):
                box = tags[one["category_id"]], one["bbox"]
                boxes.setdefault(one["image_id"], []).append(box)
        files = {one["id"]: one for one in content["images"]}
        pictures = [
            (files[number]["file_name"], (files[number]["width"], files[number]["height"]), found)
            for number, found in boxes.items()
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FileError(f"{annotations}: is not a file of COCO's boxes ({reason})") from error
    if not pictures:
        raise FileError(f"{annotations}: has no box of a category that the vocabulary has")
    for name, whole, found in pictures:
        try:
            pixels = preprocess((images / name).read_bytes(), size)
        except (OSError, ImageError) as error:
            raise FileError(f"{images / name}: cannot be read ({error})") from error
        yield Scene(pixels, joined([({tag}, box_mask(box, whole, size)) for tag, box in found]))


def box_mask(box: Sequence[float], picture: tuple[int, int], size: int) -> Mask:
    """Return a box as it lies in the squashed picture, at least a pixel wide and high.

    Args:
        box: left, top, width and height, in pixels of the picture.
        picture: its width and height.
        size: the side that it is squashed to.
    """
    left, top, width, height = box
    mask = np.zeros((size, size), bool)
    edges = []
    for start, length, whole in ((left, width, picture[0]), (top, height, picture[1])):
        first = min(max(int(start / whole * size), 0), size - 1)
        edges.append(slice(first, max(first + 1, round((start + length) / whole * size))))
    mask[edges[1], edges[0]] = True
    return mask


def measure(
    model: RAM, thresholds: Tensor, scenes: Iterable[Scene]
) -> dict[str, list[list[float]]]:
    """Judge every way on the tags that are found and right; a row per tag of a picture."""
    ways = {**ways_of_head(model), **BASELINES}
    figures: dict[str, list[list[float]]] = {name: [] for name in ways}
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
                    figures[name].append(judge(weights.reshape(side, side), scene.masks[tag]))
    return figures


def judge(weights: NDArray[np.float32], mask: Mask) -> list[float]:
    """Return one value per column for a map.

    Args:
        weights: (side, side), their sum is positive.
        mask: where the thing is.
    """
    size = len(mask)
    cell = size / len(weights)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    # A point within half a cell of the box: cells are larger than what they have to hit.
    hit = all(
        edge.start - cell / 2 <= (place + 0.5) * cell <= edge.stop + cell / 2
        for edge, place in zip(box, np.unravel_index(weights.argmax(), weights.shape), strict=True)
    )
    fine = enlarge(weights, size, size)
    overlaps = [overlap(mask, fine > least * fine.max()) for least in MASK_THRESHOLDS]
    true, given = np.zeros((2, size, size), bool)
    true[box] = True
    left, top, right, bottom = (round(edge * size) for edge in box_of(weights))
    given[top:bottom, left:right] = True
    inside = fine[box].sum() / fine.sum()
    return [float(hit), inside, average_precision(mask, fine), *overlaps, overlap(true, given)]


def overlap(mask: Mask, other: Mask) -> float:
    """Return the intersection over the union."""
    return float((mask & other).sum() / (mask | other).sum())


def average_precision(mask: Mask, weights: NDArray[np.float32]) -> float:
    """Return the mean precision over the mask's pixels, as the threshold falls."""
    right = mask.ravel()[np.argsort(-weights.ravel(), kind="stable")]
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float(precision[right].mean())


if __name__ == "__main__":
    sys.exit(run_module("experiments.heat_maps", sys.modules[__name__]))
