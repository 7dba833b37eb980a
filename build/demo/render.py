"""Render drawings in SVG with resvg, which gives the same pixels on every machine."""

import io
import sys
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image


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


def main(folder: Path, size: int = 384) -> None:
    """Render each SVG of a folder to a PNG beside it, and print what was written.

    Args:
        folder: contains the SVGs, and gets the PNGs.
        size: side length of the pictures in pixels.
    """
    for drawing in sorted(folder.glob("*.svg")):
        picture = drawing.with_suffix(".png")
        image = render_svg(drawing.read_text(encoding="utf-8"), size).convert("RGB")
        image.save(picture, optimize=True)
        print(f"{picture} ({picture.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
