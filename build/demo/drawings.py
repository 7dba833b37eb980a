"""Which drawing in which package shows which emoji."""

import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.emoji import Emoji, to_hexcode
from demo.packages import Package
from demo.render import fit_square, render_svg, to_pixels


@dataclass(frozen=True)
class Drawing:
    """One vendor's drawing of one emoji.

    Attributes:
        vendor: short name of the drawing style.
        emoji: what it shows.
        svg: the drawing, where the vendor's package holds SVG.
        file: its image file, where the package holds images.
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
        # One package gives a name to two characters: which of them the drawing shows, none can say.
        uses = Counter(names.values())
        self.names = {code: name for code, name in names.items() if uses[name] == 1}

    def svg(self, name: str) -> str:
        """Return the drawing of that name, mirrored where it is another one's mirror image."""
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
        """Return all names of the drawing of that name: older versions of Unicode had others."""
        others = (other for other, alias in self.aliases.items() if alias == {"parent": name})
        return {name, *others}


def find_drawings(folders: dict[Package, Path], emoji: list[Emoji]) -> list[Drawing]:
    """Find the drawings of the emoji in all packages.

    Some packages say which character an icon shows. The others only name their icons, after
    Unicode's names of their time: they are joined by any name that one of the former has for it.

    Args:
        folders: the packages of drawings, and where they are unpacked.
        emoji: what to look for.

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
    # A name that two emoji went by tells nothing. A label's own name is its emoji's.
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
    """Return a label as icon names spell it: "woman’s hat" → "womans-hat"."""
    ascii_only = unicodedata.normalize("NFKD", label.replace("’", "").replace("'", ""))
    ascii_only = ascii_only.encode("ascii", "ignore").decode().lower().replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
