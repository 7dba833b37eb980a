"""What is sent: pictures of mixed sizes and formats, broken ones, and the kinds of requests."""

import functools
import hashlib
import random
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import RLock
from PIL import Image, ImageOps
from ram_client.errors import ImageUnreadable
from ram_client.files import find_images
from ram_triton.errors import LoadError
from ram_triton.repository.layout import DEMO_IMAGES
from ram_triton.server_code import TagOptions

# The longest side in pixels: a thumbnail, a web page's picture, a screenshot, a phone's photo.
LONGEST_SIDES = (240, 640, 1280, 4000)
FORMATS: Mapping[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 88}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 80}),
}
PHOTO_SIDE = 4000  # photos are that large, and photos are JPEGs


@dataclass(frozen=True)
class Picture:
    """An encoded image and its name in reports."""

    name: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Identifies the picture on every machine, whether it is read or made there."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: the name of the task that sends it.
        threshold: the score that each tag must exceed; None for each tag's own.
        top_k: the highest number of tags; 0 for no limit.
        labels: the request's own labels, sent to the model that takes them; empty for the other.
        images: the number of pictures per request.
        is_refused: whether the right answer is an error.
    """

    name: str
    threshold: float | None = None
    top_k: int = 0
    labels: Sequence[str] = ()
    images: int = 1
    is_refused: bool = False

    @property
    def label(self) -> str:
        """Its name in reports, with what it asks for: `top_k 5`."""
        notes = [
            "" if self.threshold is None else f" {self.threshold:g}",
            f" {self.top_k}" if self.top_k else "",
            f", {len(self.labels)} labels" if self.labels else "",
            f", {self.images} images" if self.images > 1 else "",
            " (error expected)" if self.is_refused else "",
        ]
        return self.name + "".join(notes)

    @property
    def options(self) -> TagOptions:
        """What it asks for, as the judge of answers takes it."""
        return TagOptions(threshold=self.threshold, top_k=self.top_k)

    @property
    def arguments(self) -> dict[str, Any]:
        """What it asks for, as the client takes it: nothing that a plain request leaves out."""
        return {
            "threshold": self.threshold,
            "top_k": self.top_k or None,
            "labels": self.labels or None,
        }


@dataclass(frozen=True)
class Request:
    """A request to send: its kind and its pictures."""

    kind: Kind
    pictures: Sequence[Picture]


@dataclass
class Traffic:
    """Draws requests.

    Attributes:
        pictures: the pictures of good requests.
        broken: what the server has to refuse.
        kinds: the kinds of requests by name; plain requests replace one that is not among them.
        generator: draws the pictures.
    """

    pictures: list[Picture]
    broken: list[Picture]
    kinds: dict[str, Kind]
    generator: random.Random = field(default_factory=random.Random)

    def request(self, name: str) -> Request:
        """Return a request of this kind with pictures drawn at random."""
        kind = self.kinds.get(name, self.kinds["plain"])
        source = self.broken if kind.is_refused else self.pictures
        return Request(kind, self.generator.choices(source, k=kind.images))


def make_kinds(options: Namespace, labels: Sequence[str]) -> dict[str, Kind]:
    """Return the kinds of requests by name; `open` only if there are labels."""
    kinds = [
        Kind("plain"),
        Kind("threshold", threshold=options.threshold),
        Kind("top_k", top_k=options.top_k),
        Kind("batch", images=options.batch),
        Kind("broken", is_refused=True),
    ]
    if labels:
        kinds.append(Kind("open", labels=labels))
    return {kind.name: kind for kind in kinds}


_finding = RLock()


def find_pictures(folder: str) -> tuple[list[Picture], list[Picture]]:
    """Return good and broken pictures: those of a folder, or made ones if it is empty text.

    They are found once for all tests of the process, and in a real thread: a worker that is busy
    for seconds would be taken for dead.

    Raises:
        LoadError: there are no pictures.
    """
    with _finding:
        found: tuple[list[Picture], list[Picture]]
        found = gevent.get_hub().threadpool.apply(_find_pictures, (folder,))
        return found


@functools.cache
def _find_pictures(folder: str) -> tuple[list[Picture], list[Picture]]:
    pictures = read_folder(Path(folder)) if folder else make_mixed()
    return pictures, make_broken(pictures)


def read_folder(folder: Path) -> list[Picture]:
    """Read the images of a folder and its subfolders, unchanged.

    Raises:
        LoadError: there are none, or one cannot be read.
    """
    try:
        files = find_images(folder, recursive=True)
        pictures = [Picture(str(path.relative_to(folder)), path.read_bytes()) for path in files]
    except (ImageUnreadable, ValueError) as error:
        raise LoadError(f"{error}: --images takes a folder of images") from error
    except OSError as error:
        raise LoadError(f"{error.filename}: {error.strerror}") from error
    return list({picture.sha256: picture for picture in pictures}.values())


def make_mixed(originals: Path = DEMO_IMAGES) -> list[Picture]:
    """Make each original in several sizes, in turn as JPEG, PNG and WebP.

    Raises:
        LoadError: the folder contains no PNG.
    """
    paths = sorted(originals.glob("*.png"))
    if not paths:
        raise LoadError(f"{originals}: contains no PNG to make pictures from")
    formats = list(FORMATS)
    return [
        _resized(path, side, "jpg" if side == PHOTO_SIDE else formats[(row + column) % 3])
        for row, path in enumerate(paths)
        for column, side in enumerate(LONGEST_SIDES)
    ]


def make_broken(pictures: Sequence[Picture]) -> list[Picture]:
    """Make what servers are sent by mistake: nothing, text, a web page, interrupted uploads."""
    cut_off = [
        Picture(f"half of {picture.name}", picture.data[: len(picture.data) // 2])
        for picture in pictures
        if picture.data.startswith((b"\xff\xd8", b"\x89PNG"))
    ]
    return [
        Picture("nothing", b""),
        Picture("text", b"a text, and not an image"),
        Picture("web page", b"<!doctype html><title>404</title>"),
        *cut_off[:3],
    ]


def _resized(path: Path, side: int, suffix: str) -> Picture:
    image_format, options = FORMATS[suffix]
    buffer = BytesIO()
    with Image.open(path) as image:
        ImageOps.contain(image.convert("RGB"), (side, side)).save(buffer, image_format, **options)
    return Picture(f"{path.stem}_{side}.{suffix}", buffer.getvalue())
