"""The demo's data set: emoji in several vendors' drawings, with tags in two languages.

`.venv/bin/python -m demo.dataset` makes it from nothing: it fetches the packages through npm,
renders the drawings, and writes

    images.npy      uint8 RGBA, (images, size, size, 4): one array, mapped into memory
    manifest.jsonl  one line per image: see Image
    about.json      how it was made, its contents and their licences
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ram_triton.arguments import positive
from ram_triton.cli import run_module
from ram_triton.errors import FileError
from ram_triton.files import read_lines
from rich.progress import track

from demo import splits
from demo.drawings import Drawing, find_drawings
from demo.emoji import Emoji, read_emoji
from demo.packages import DRAWINGS, NAMES, add_packages, fetch_package
from demo.vocabulary import FOLDER, Tag, read_tags

# Thumbnails of two vendors' drawings of one emoji differ by 0.17 at the median, and by 0.02 or
# less only where both drew the same plain shape.
_COPY = 0.03


@dataclass(frozen=True)
class Image:
    """A line of the manifest.

    Attributes:
        image: the drawing's index in images.npy.
        split: "train", "validation", "test_seen" or "test_unseen".
        vendor: who drew it.
        emoji: its hexcode.
        concept: what it shares with its variants; no concept is in both a seen and an unseen split.
        tags: its tags, in the vocabulary's order; may be empty.
        tags_zh: the same tags in Chinese.
        caption: what it shows, in English.
    """

    image: int
    split: str
    vendor: str
    emoji: str
    concept: str
    tags: list[str]
    tags_zh: list[str]
    caption: str


def load_dataset(folder: Path) -> tuple[np.ndarray, list[Image]]:
    """Load the data set.

    Args:
        folder: contains it.

    Returns:
        The images, uint8 RGBA (images, size, size, 4), mapped from the file and read-only; and
        the manifest, where `image` is the index into them.

    Raises:
        FileError: it is not there.
    """
    if not (folder / "about.json").is_file():
        raise FileError(f"{folder}: contains no data set; 'make runs/demo/features.npy' makes it")
    manifest = [Image(**json.loads(line)) for line in read_lines(folder / "manifest.jsonl")]
    return np.load(folder / "images.npy", mmap_mode="r"), manifest


def make_dataset(folder: Path, packages: Path, size: int) -> dict:
    """Make the data set, unless it is there already.

    Args:
        folder: to make; it appears as a whole, or not at all.
        packages: folder that keeps the fetched packages.
        size: side length of the images in pixels.

    Returns:
        The contents of about.json.

    Raises:
        PackageError: a package could not be fetched.
    """
    recipe = _describe_recipe(size)
    about = folder / "about.json"
    if about.is_file():
        made = json.loads(about.read_text("utf-8"))
        if made["recipe"] == recipe:
            return made

    sources = (NAMES, *DRAWINGS)
    fetched = {
        package: fetch_package(package, packages)
        for package in track(sources, "Fetching packages", transient=True)
    }
    emoji, tags_of, unseen = read_concepts(fetched.pop(NAMES))
    drawings = find_drawings(fetched, emoji)
    placed = [
        (drawing, split)
        for drawing in drawings
        if (split := splits.choose_split(drawing.vendor, drawing.emoji.concept in unseen))
    ]

    with _replacing(folder) as scratch:
        images, copies = _render([drawing for drawing, _ in placed], size)
        kept = [index for index in range(len(placed)) if index not in copies]
        manifest = [
            _describe(position, *placed[index], tags_of) for position, index in enumerate(kept)
        ]
        np.save(scratch / "images.npy", images[kept])
        with (scratch / "manifest.jsonl").open("w", encoding="utf-8") as lines:
            for image in manifest:
                lines.write(json.dumps(asdict(image), ensure_ascii=False) + "\n")
        made = {
            "recipe": recipe,
            "size": size,
            "tags": len(read_tags()),
            "images": len(manifest),
            "splits": dict(Counter(image.split for image in manifest)),
            "vendors": dict(Counter(image.vendor for image in manifest)),
            "concepts": len({one.concept for one in emoji}),
            "concepts_unseen": len(unseen),
            "drawings_of_unseen_concepts_left_out": len(drawings) - len(placed),
            "copies_of_test_drawings_left_out": len(copies),
            "packages": [asdict(package) for package in sources],
        }
        (scratch / "about.json").write_text(json.dumps(made, indent=2) + "\n", "utf-8")
    return made


def read_concepts(names: Path) -> tuple[list[Emoji], dict[str, list[Tag]], set[str]]:
    """Return the emoji of the package of names, the tags of each hexcode, the unseen concepts."""
    emoji, tags = read_emoji(names), read_tags()
    tags_of = {one.hexcode: [tag for tag in tags if tag.describes(one)] for one in emoji}
    joined: dict[str, set[str]] = {}  # a concept has the tags of all its variants
    for one in emoji:
        joined.setdefault(one.concept, set()).update(tag.name for tag in tags_of[one.hexcode])
    return emoji, tags_of, splits.hold_out_concepts(joined)


def _describe(position: int, drawing: Drawing, split: str, tags_of: dict[str, list[Tag]]) -> Image:
    tags = tags_of[drawing.emoji.hexcode]
    return Image(
        image=position,
        split=split,
        vendor=drawing.vendor,
        emoji=drawing.emoji.hexcode,
        concept=drawing.emoji.concept,
        tags=[tag.name for tag in tags],
        tags_zh=[tag.name_zh for tag in tags],
        caption=drawing.emoji.label.lower().replace("’", "'"),
    )


def _render(drawings: list[Drawing], size: int) -> tuple[np.ndarray, set[int]]:
    """Return the drawings as pixels, and the indices of those that a test drawing repeats."""
    images = np.empty((len(drawings), size, size, 4), np.uint8)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        rendered = pool.map(partial(Drawing.render, size=size), drawings, chunksize=32)
        for index, pixels in enumerate(track(rendered, "Rendering", len(drawings))):
            images[index] = pixels
    copies = splits.find_copies(
        np.stack([splits.shrink(pixels) for pixels in track(images, "Looking for copies")]),
        [drawing.vendor for drawing in drawings],
        [drawing.emoji.concept for drawing in drawings],
        _COPY,
    )
    return images, copies


def _describe_recipe(size: int) -> str:
    """Return a checksum of all that decides the data set's contents."""
    checksum = hashlib.sha256(f"{size} {version('resvg_py')} {version('pillow')}".encode())
    modules = ("dataset", "drawings", "emoji", "packages", "splits", "vocabulary")
    files = [Path(__file__).with_name(f"{module}.py") for module in modules]
    for file in (*files, FOLDER / "rules.toml"):
        checksum.update(file.read_bytes())
    return checksum.hexdigest()


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces another one if no error occurs."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/demo/data"), metavar="DIR")
    add_packages(parser)
    add("--size", type=positive, default=112, metavar="PIXELS", help="side length of the images")


def run(arguments: argparse.Namespace) -> None:
    """Make the data set, and print its contents."""
    about = make_dataset(arguments.output, arguments.packages, arguments.size)
    counts = ", ".join(f"{count} {name}" for name, count in about["splits"].items())
    print(f"{arguments.output}: {about['images']} images ({counts}), {about['tags']} tags")


if __name__ == "__main__":
    sys.exit(run_module("demo.dataset", sys.modules[__name__]))
