"""Render what `make demo` shows of the vendor whose drawings training never saw.

`python -m demo.held_out` fetches two packages through npm, chooses one drawing per category by a
rule that does not depend on what the model answers, writes them as PNGs into
build/demo/images/twemoji/, and prints the rows of that folder's README.
"""

import hashlib
import sys
from pathlib import Path

from PIL import Image
from ram_triton.cli import guarded

from demo.dataset import join_tags
from demo.drawings import Drawing, find_drawings
from demo.emoji import read_emoji
from demo.packages import DRAWINGS, NAMES, fetch_package
from demo.render import render_svg
from demo.splits import TEST_SEEN, TEST_VENDOR, choose_split, hold_out_concepts
from demo.vocabulary import read_tags

FOLDER = Path(__file__).parent / "images" / TEST_VENDOR
PACKAGE = next(package for package in DRAWINGS if package.vendor == TEST_VENDOR)
# Unicode's subgroups of things that most people know.
CATEGORIES = (
    "animal-mammal",
    "animal-bird",
    "plant-flower",
    "food-fruit",
    "food-prepared",
    "transport-ground",
    "sport",
    "musical-instrument",
)
SIZE = 256


def choose_drawings(packages: Path) -> list[tuple[Drawing, list[str]]]:
    """Choose one drawing per category: of those in `test_seen`, the first by its name's hash.

    Args:
        packages: folder that keeps the fetched packages.

    Returns:
        The drawings in the categories' order, each with the names of its right tags.

    Raises:
        PackageError: a package could not be fetched.
    """
    emoji = read_emoji(fetch_package(NAMES, packages))
    tags = read_tags()
    tags_of = {one.hexcode: [tag for tag in tags if tag.describes(one)] for one in emoji}
    unseen = hold_out_concepts(join_tags(emoji, tags_of))
    candidates = [
        drawing
        for drawing in find_drawings({PACKAGE: fetch_package(PACKAGE, packages)}, emoji)
        if choose_split(drawing.vendor, drawing.emoji.concept in unseen) == TEST_SEEN
        and tags_of[drawing.emoji.hexcode]
    ]
    chosen = [
        min(
            (drawing for drawing in candidates if drawing.emoji.subgroup == category),
            key=lambda drawing: hashlib.sha256(drawing.emoji.label.encode()).digest(),
        )
        for category in CATEGORIES
    ]
    return [(one, [tag.name for tag in tags_of[one.emoji.hexcode]]) for one in chosen]


def main(packages: Path) -> None:
    """Write the pictures and print what they are.

    Args:
        packages: folder that keeps the fetched packages.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for drawing, tags in choose_drawings(packages):
        label, hexcode = drawing.emoji.label, drawing.emoji.hexcode
        picture = FOLDER / f"{label.replace(' ', '_')}.png"
        rendered = render_svg(drawing.svg, SIZE)
        white = Image.new("RGBA", rendered.size, "white")
        image = Image.alpha_composite(white, rendered).convert("RGB")
        image.save(picture, optimize=True)
        print(f"| `{picture.name}` | {label} | U+{hexcode.upper()} | {', '.join(tags)} |")


if __name__ == "__main__":
    packages = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo/packages")
    sys.exit(guarded("demo.held_out", lambda: main(packages)))
