"""Draw the pictures of the demo that the project shows. It needs what `make train` installs.

own: the PNGs beside the SVGs in build/demo/images/.

held-out: what `make demo` shows of the vendor whose drawings training never saw. Two packages are
fetched through npm, one drawing per category is chosen by a rule that does not depend on what the
model answers, written as PNG into build/demo/images/twemoji/, and the rows of that folder's README
are printed.

where: docs/img/where.webp, two of the pictures side by side, and where the demo's model, which is
served for it, finds their tags.
"""

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from PIL import Image
from ram_client import RamClient
from ram_client.sinks.overlays import QUALITY, draw
from ram_triton.cli import run_module
from ram_triton.repository.layout import DEMO_IMAGES, PROJECT
from ram_triton.server import TritonServer

from demo.dataset import read_concepts
from demo.drawings import Drawing, find_drawings, render_svg
from demo.packages import DRAWINGS, NAMES, add_packages, fetch_package
from demo.ready_graphs import install
from demo.splits import TEST_SEEN, TEST_VENDOR, choose_split

OWN_SIZE, HELD_OUT_SIZE = 384, 256  # pixels
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
WHERE = PROJECT / "docs" / "img" / "where.webp"
SHOWN = ("car_and_mountain.png", "cat.png")
SIDE, TAGS = 160, 3  # pixels of each picture; tags that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("what", choices=("own", "held-out", "where"))
    add_packages(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw, and print what was written."""
    if arguments.what == "own":
        draw_own()
    elif arguments.what == "held-out":
        draw_held_out(arguments.packages)
    else:
        draw_where()


def draw_own() -> None:
    """Render each SVG to a PNG beside it."""
    for drawing in sorted(DEMO_IMAGES.glob("*.svg")):
        picture = drawing.with_suffix(".png")
        image = render_svg(drawing.read_text(encoding="utf-8"), OWN_SIZE).convert("RGB")
        image.save(picture, optimize=True)
        print(f"{picture} ({picture.stat().st_size / 1024:.0f} KiB)")


def draw_held_out(packages: Path) -> None:
    """Write the chosen drawings, and print what they are.

    Raises:
        PackageError: a package could not be fetched.
    """
    folder = DEMO_IMAGES / TEST_VENDOR
    folder.mkdir(parents=True, exist_ok=True)
    for drawing, tags in choose_drawings(packages):
        label, hexcode = drawing.emoji.label, drawing.emoji.hexcode
        picture = folder / f"{label.replace(' ', '_')}.png"
        rendered = render_svg(drawing.svg, HELD_OUT_SIZE)
        white = Image.new("RGBA", rendered.size, "white")
        image = Image.alpha_composite(white, rendered).convert("RGB")
        image.save(picture, optimize=True)
        print(f"| `{picture.name}` | {label} | U+{hexcode.upper()} | {', '.join(tags)} |")


def choose_drawings(packages: Path) -> list[tuple[Drawing, list[str]]]:
    """Choose one drawing per category: of those in `test_seen`, the first by its name's hash.

    Args:
        packages: folder that keeps the fetched packages.

    Returns:
        The drawings in the categories' order, each with the names of its right tags.

    Raises:
        PackageError: a package could not be fetched.
    """
    emoji, tags_of, unseen = read_concepts(fetch_package(NAMES, packages))
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


def draw_where() -> None:
    """Serve the demo's model, ask it for tags and maps, and draw these."""
    joined = Image.new("RGB", (SIDE * len(SHOWN), SIDE))
    for place, name in enumerate(SHOWN):
        with Image.open(DEMO_IMAGES / name) as picture:
            joined.paste(picture.convert("RGB").resize((SIDE, SIDE)), (place * SIDE, 0))
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder, "models"))
        with TritonServer(Path(folder, "models")) as server, RamClient(server.grpc) as client:
            tags = client.tag(joined, top_k=TAGS, where=True)
    draw(joined, tags).save(WHERE, quality=QUALITY)
    print(f"{WHERE}: {', '.join(tag.name for tag in tags)}, {WHERE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(run_module("demo.pictures", sys.modules[__name__]))
