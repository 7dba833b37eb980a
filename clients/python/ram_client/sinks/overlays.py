"""Pictures that show where the tags of a picture are: its heat maps, one tile per tag."""

import io
import math
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

from .. import formats
from ..errors import ImageUnreadable, reason_of
from ..files import Source
from ..image import ImageLike
from ..tag import Tag, overlay
from .sink import Sink, WriteFailed, explained, folder_of, replacing

MOST = 6  # tags that are shown
COLUMNS = 3
TILE = 320  # longer side of the picture in a tile, pixels
CAPTION = 24  # height, pixels
LETTERS = 15  # size, pixels
QUALITY = 90


class Overlays(Sink):
    """`DIR/album/photo.png.jpg` for `album/photo.png`: its best tags, each with box and score.

    A picture without tags is shown as it is.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def open(self) -> None:
        """Make the folder."""
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def has(self, source: Source) -> bool:
        """Whether there is a file of that name."""
        return self._path(source).exists()

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Draw and write the file."""
        path = self._path(source)
        drawn = draw(read(folder_of(source)), tags)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as new:
                drawn.save(new, "JPEG", quality=QUALITY)

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """The file, and how many maps it shows."""
        return f"{self._path(source)}: {min(len(tags), MOST)} heat maps"

    def _path(self, source: Source) -> Path:
        path = folder_of(source)
        parts = [part for part in path.parts if part not in (path.anchor, "..")]
        return self._folder.joinpath(*parts[:-1], f"{parts[-1]}.jpg")


def read(path: Path) -> PIL.Image.Image:
    """The picture as it was tagged: upright, on white, RGB, and no larger than a tile.

    Raises WriteFailed.
    """
    try:
        loaded = formats.load(path)
        picture = loaded if isinstance(loaded, PIL.Image.Image) else _open(loaded)
        picture.draft("RGB", (TILE, TILE))
        picture = PIL.ImageOps.exif_transpose(picture).convert("RGBA")
        picture.thumbnail((TILE, TILE))
    except (ImageUnreadable, OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise WriteFailed(f"{path}: cannot be drawn: {reason_of(error)}") from error
    white = PIL.Image.new("RGBA", picture.size, "white")
    return PIL.Image.alpha_composite(white, picture).convert("RGB")


def _open(loaded: ImageLike) -> PIL.Image.Image:
    file = io.BytesIO(loaded) if isinstance(loaded, bytes) else Path(str(loaded))
    return PIL.Image.open(file)


def draw(picture: PIL.Image.Image, tags: list[Tag]) -> PIL.Image.Image:
    """The picture once per tag, with the tag's heat map, box, name and score; in rows."""
    shown = [tag for tag in tags if tag.heatmap is not None][:MOST]
    tiles = [tile(picture, tag) for tag in shown] or [picture]
    width, height = tiles[0].size
    columns = min(len(tiles), COLUMNS)
    rows = math.ceil(len(tiles) / columns)
    sheet = PIL.Image.new("RGB", (columns * width, rows * height), "white")
    for number, each in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(each, (column * width, row * height))
    return sheet


def tile(picture: PIL.Image.Image, tag: Tag) -> PIL.Image.Image:
    """The picture with one tag's heat map and box, the name below it."""
    made = PIL.Image.new("RGB", (picture.width, picture.height + CAPTION), "white")
    box = tag.box
    if tag.heatmap is not None and box is not None:
        made.paste(overlay(picture, tag.heatmap))
        pen = PIL.ImageDraw.Draw(made)
        left, top, right, bottom = box
        corners = [
            (left * (picture.width - 1), top * (picture.height - 1)),
            (right * (picture.width - 1), bottom * (picture.height - 1)),
        ]
        pen.rectangle(corners, outline="white", width=4)
        pen.rectangle(corners, outline="red", width=2)
        font = PIL.ImageFont.load_default(LETTERS)
        pen.text((4, picture.height + 3), f"{tag.name} {tag.score:.2f}", "black", font)
    return made
