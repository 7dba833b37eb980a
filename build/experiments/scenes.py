"""Pictures in which the places of things are known: composites of drawings, or COCO's boxes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo.dataset import load_dataset
from demo.splits import TEST_SEEN
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from ram_triton.errors import FileError
from ram_triton.server_code import ImageError, Vocabulary, preprocess

FEWEST, MOST = 2, 4  # things in a composite
SMALLEST, LARGEST = 0.22, 0.5  # side of a thing, as a share of the picture's
ATTEMPTS = 100  # at a place for a thing
BACKGROUNDS = {
    "as in training": "white, or a colour that varies smoothly",
    "others": "stripes, checks, or blurred noise",
}


@dataclass(frozen=True)
class Scene:
    """A picture, and where in it things are.

    Attributes:
        pixels: RGB, uint8 (size, size, 3).
        masks: by the tag's line in the vocabulary, where what it names is: bool (size, size).
    """

    pixels: NDArray[np.uint8]
    masks: Mapping[int, NDArray[np.bool_]]


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
        placed: list[tuple[set[int], NDArray[np.bool_]]] = []
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


def find_place(random: np.random.Generator, free: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return left, top and side of a square that is free, or None if none was found."""
    size = len(free)
    for _ in range(ATTEMPTS):
        side = round(size * random.uniform(SMALLEST, LARGEST))
        left, top = (int(edge) for edge in random.integers(0, size - side + 1, 2))
        if free[top : top + side, left : left + side].all():
            return left, top, side
    return None


def joined(placed: Sequence[tuple[set[int], NDArray[np.bool_]]]) -> dict[int, NDArray[np.bool_]]:
    """Return each tag's mask: that of all things that it names."""
    masks: dict[int, NDArray[np.bool_]] = {}
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
                boxes.setdefault(one["image_id"], []).append(
                    (tags[one["category_id"]], one["bbox"])
                )
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


def box_mask(box: Sequence[float], picture: tuple[int, int], size: int) -> NDArray[np.bool_]:
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
