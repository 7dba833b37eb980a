"""What a training set says of its images; every mistake in it is found before training begins."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ram_triton.errors import ManifestError
from ram_triton.files import IMAGE_SUFFIXES
from ram_triton.server_code import ImageError
from ram_triton.training.config import Data
from ram_triton.training.image_file import read_flat

SHOWN_PROBLEMS = 100
CHECKED_SIZE = 8  # in pixels; that an image decodes, not what comes of it, is asked


@dataclass(frozen=True)
class Sample:
    """An image and what is known of it.

    Attributes:
        line: its place in the manifest, from 0: that of its row of the features too.
        image: its file, or its index into the array of images.
        tags: indices into the vocabulary, ascending.
        caption: a sentence in English, or None.
        split: None where the manifest has none.
    """

    line: int
    image: Path | int
    tags: tuple[int, ...]
    caption: str | None = None
    split: str | None = None


def read_samples(data: Data, tags: list[str], tags_zh: list[str]) -> list[Sample]:
    """Read and check a manifest or a folder.

    A manifest's line is a JSON object: `image` (a path from the manifest's folder, or an index
    into the array of images), `tags` (English names), `tags_zh` (Chinese ones; what either list
    names counts), `caption`, `split`. All but `image` and one list of tags may be left out.

    In a folder each image has its tags in a .txt of the same name, a tag a line, in English or
    Chinese; the subfolder that it is in names its split.

    Args:
        data: where they lie.
        tags: the vocabulary's English names.
        tags_zh: its Chinese ones.

    Raises:
        ManifestError: something is wrong; all of it is in the message.
    """
    problems: list[str] = []
    # Where two tags share a Chinese name, the first has it: English names tell them apart.
    english = {name: index for index, name in enumerate(tags)}
    chinese = {name: index for index, name in reversed(list(enumerate(tags_zh)))}
    if data.folder is not None:
        lines = _read_folder(data.folder, problems)
    else:
        lines = _read_manifest(data.manifest, problems)
    count = _count_images(data.images, problems)
    samples, files = [], []
    for number, place, base, line in lines:
        complain = _complainer(problems, place)
        sample = _read_line(number, line, base, english, chinese, count, complain)
        if sample is not None:
            samples.append(sample)
            files.append((sample.image, complain))
    _check_files(files)
    if not samples and not problems:
        problems.append(f"{data.manifest or data.folder}: holds no images")
    if problems:
        raise ManifestError(problems)
    return samples


Complain = Callable[[str], None]


def _complainer(problems: list[str], place: str) -> Complain:
    return lambda problem: problems.append(f"{place}: {problem}")


def _read_manifest(path: Path, problems: list[str]) -> Iterator[tuple[int, str, Path, object]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return
    for number, line in enumerate(lines):
        place = f"{path}, line {number + 1}"
        try:
            yield number, place, path.parent, json.loads(line)
        except ValueError as error:  # of JSON and of UTF-8
            problems.append(f"{place}: is no JSON ({error})")


def _read_folder(folder: Path, problems: list[str]) -> Iterator[tuple[int, str, Path, object]]:
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder")
        return
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    for number, image in enumerate(images):
        notes = image.with_suffix(".txt")
        try:
            names = [line.strip() for line in notes.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError):
            problems.append(f"{image}: its tags cannot be read from {notes.name}")
            continue
        names = [name for name in names if name]
        inside = image.relative_to(folder).parts
        split = inside[0] if len(inside) > 1 else None
        line = {"image": str(image.resolve()), "either": names, "split": split}
        yield number, str(notes), folder, line


def _read_line(
    number: int,
    line: object,
    base: Path,
    english: dict[str, int],
    chinese: dict[str, int],
    count: int | None,
    complain: Complain,
) -> Sample | None:
    """Check a line; returns None where it is no object with an image."""
    if not isinstance(line, dict) or type(line.get("image")) not in (str, int):
        complain("is no object with an 'image', a path or an index")
        return None
    image = line["image"]
    if isinstance(image, str):
        image = base / image
    elif count is None or not 0 <= image < count:
        complain(f"there is no image {image} in the array of {count or 0} images")
    if not {"tags", "tags_zh", "either"} & set(line):
        complain("has no 'tags' and no 'tags_zh'")
    found: set[int] = set()
    for field, names in (
        ("tags", english),
        ("tags_zh", chinese),
        ("either", {**chinese, **english}),
    ):
        wanted = line.get(field, [])
        if not isinstance(wanted, list) or not all(isinstance(tag, str) for tag in wanted):
            complain(f"'{field}' is no list of names")
            continue
        if field == "tags_zh" and "tags" in line:
            # The English names are given, and unlike the Chinese they are unique.
            _complain_of_unknown(wanted, names, complain)
            continue
        _complain_of_unknown(wanted, names, complain)
        found |= {names[tag] for tag in wanted if tag in names}
    for field in ("caption", "split"):
        if not isinstance(line.get(field), str | None):
            complain(f"'{field}' is no text")
    return Sample(number, image, tuple(sorted(found)), line.get("caption"), line.get("split"))


def _complain_of_unknown(wanted: list[str], names: dict[str, int], complain: Complain) -> None:
    for tag in wanted:
        if tag not in names:
            complain(f"the tag '{tag}' is not in the vocabulary")


def _count_images(path: Path | None, problems: list[str]) -> int | None:
    if path is None:
        return None
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        problems.append(f"{path}: is no array of images ({error})")
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (3, 4):
        problems.append(
            f"{path}: {images.dtype} {images.shape} is no array of images, "
            "uint8 (images, height, width, 3 or 4)"
        )
        return None
    return len(images)


def _check_files(files: Iterable[tuple[Path | int, Complain]]) -> None:
    """Decode every image file once: a broken one would else stop the training hours later."""
    wanted = [(image, complain) for image, complain in files if isinstance(image, Path)]
    with ThreadPoolExecutor() as pool:
        for problem, (_, complain) in zip(
            pool.map(_file_problem, (image for image, _ in wanted)), wanted, strict=True
        ):
            if problem:
                complain(problem)


def _file_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"the image {path} is missing"
    try:
        read_flat(path, CHECKED_SIZE)
    except (OSError, ImageError) as error:
        return f"the image {path} cannot be used ({error})"
    return None
