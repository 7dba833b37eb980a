"""The drawings in the packages: which emoji they show, and their pixels.

resvg renders SVG to the same pixels on every machine.
"""

import io
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from demo.emoji import Emoji, to_hexcode
from demo.packages import Package


def render_svg(svg: str, size: int) -> Image.Image:
    """Render an SVG so that it fits a square and is centred in it.

    Args:
        svg: the text of the drawing.
        size: side length of the square in pixels.

    Returns:
        An RGBA image of size × size, transparent where nothing is drawn.

    Raises:
        ValueError: resvg cannot read the text as SVG.
    """
    # resvg keeps the drawing's proportions: its width or height may be less than the square's.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    return fit_square(Image.open(io.BytesIO(bytes(png))), size)


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Scale an image so that it fits a square, centred, and pad it with transparency.

    Args:
        image: any mode and size.
        size: side length of the square in pixels.

    Returns:
        An RGBA image of size × size.
    """
    image = image.convert("RGBA")
    if image.size != (size, size):
        scale = size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        if image.size != (width, height):
            # Premultiplied, so that the colour of transparent pixels does not bleed in.
            image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
            image = image.convert("RGBA")
        square = Image.new("RGBA", (size, size))
        square.paste(image, ((size - width) // 2, (size - height) // 2))
        image = square
    return image


def to_pixels(image: Image.Image) -> np.ndarray:
    """Return an RGBA image as an array, uint8, (height, width, 4).

    The colour of fully transparent pixels is set to zero, so that equal drawings are equal bytes.
    """
    pixels = np.array(image, dtype=np.uint8)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


@dataclass(frozen=True)
class Drawing:
    """One vendor's drawing of one emoji.

    Attributes:
        vendor: short name of the drawing style.
        emoji: the emoji that it shows.
        svg: the drawing, if the vendor's package contains SVG.
        file: its image file, if the package contains images.
    """

    vendor: str
    emoji: Emoji
    svg: str | None = None
    file: Path | None = None

    def render(self, size: int) -> np.ndarray:
        """Return the drawing as pixels, uint8 RGBA, (size, size, 4)."""
        if self.svg is not None:
            return to_pixels(render_svg(self.svg, size))
        with Image.open(self.file) as image:
            return to_pixels(fit_square(image, size))


class _IconSet:
    """A package in Iconify's format: SVG bodies by name, and other names for some of them."""

    def __init__(self, folder: Path):
        icons = json.loads((folder / "icons.json").read_text("utf-8"))
        characters = json.loads((folder / "chars.json").read_text("utf-8"))
        self.icons = icons["icons"]
        self.aliases = icons.get("aliases", {})
        self.size = (icons.get("width", 16), icons.get("height", 16))
        names = {to_hexcode(code): name for code, name in characters.items()}
        # One package gives a name to two characters; either of them may be the one that is drawn.
        uses = Counter(names.values())
        self.names = {code: name for code, name in names.items() if uses[name] == 1}

    def svg(self, name: str) -> str:
        """Return the drawing of that name, mirrored if it is another one's mirror image."""
        alias = self.aliases.get(name, {})
        if unknown := set(alias) - {"parent", "hFlip"}:
            raise ValueError(f"icon {name!r}: unknown settings {sorted(unknown)}")
        icon = self.icons[alias.get("parent", name)]
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        left, top = icon.get("left", 0), icon.get("top", 0)
        body = icon["body"]
        if alias.get("hFlip"):
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{body}</svg>'
        )

    def names_of(self, name: str) -> set[str]:
        """Return all names of a drawing; older versions of Unicode had other ones."""
        others = (other for other, alias in self.aliases.items() if alias == {"parent": name})
        return {name, *others}


def find_drawings(folders: dict[Package, Path], emoji: list[Emoji]) -> list[Drawing]:
    """Find the drawings of the emoji in all packages.

    Some packages specify the character of each icon. The others only name their icons, after
    Unicode's names of their time; any name that the former have for a character is looked up.

    Args:
        folders: the packages of drawings, and the folders that they are unpacked in.
        emoji: the emoji to find.

    Returns:
        The drawings, package by package, in the order of the emoji.
    """
    sets = {
        package: _IconSet(folder)
        for package, folder in folders.items()
        if (folder / "icons.json").is_file()
    }
    names = {one.hexcode: {_slug(one.label), _slug(one.label) + "-face"} for one in emoji}
    for icons in sets.values():
        for one in emoji:
            if one.hexcode in icons.names:
                names[one.hexcode] |= icons.names_of(icons.names[one.hexcode])
    # A name of two emoji is of no use, unless it is the label of one.
    holders = Counter(name for found in names.values() for name in found)
    labels = {_slug(one.label): one.hexcode for one in emoji}
    for hexcode, found in names.items():
        found -= {
            name
            for name in found
            if labels.get(name, hexcode) != hexcode or (holders[name] > 1 and name not in labels)
        }

    drawings = []
    for package, folder in folders.items():
        if package not in sets:
            files = {to_hexcode(file.stem): file for file in sorted(folder.glob("assets/*.webp"))}
            drawings += [
                Drawing(package.vendor, one, file=files[one.hexcode])
                for one in emoji
                if one.hexcode in files
            ]
            continue
        icons = sets[package]
        known = {name.replace("-", ""): name for name in sorted(icons.icons | icons.aliases)}
        for one in emoji:
            if icons.names:
                name = icons.names.get(one.hexcode)
            elif one.version > package.newest:
                name = None
            else:  # One package writes its names without hyphens.
                slugs = sorted(slug.replace("-", "") for slug in names[one.hexcode])
                name = next((known[slug] for slug in slugs if slug in known), None)
            if name is not None:
                drawings.append(Drawing(package.vendor, one, svg=icons.svg(name)))
    return drawings


def _slug(label: str) -> str:
    """Return a label in the spelling of icon names: "woman’s hat" → "womans-hat"."""
    ascii_only = unicodedata.normalize("NFKD", label.replace("’", "").replace("'", ""))
    ascii_only = ascii_only.encode("ascii", "ignore").decode().lower().replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
