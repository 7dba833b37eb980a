"""A training set's images and what is known of them; every fault is found before training."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ram_triton.errors import ConfigError, ManifestError
from ram_triton.files import IMAGE_SUFFIXES, read_lines
from ram_triton.server_code import ImageError, image_limits, preprocess
from ram_triton.training.config import Data

# A file on the disk is not a request, but its pixels take as much memory.
LIMITS = replace(image_limits(), max_bytes=2**40)
CHECKED_SIZE = 8  # in pixels; the check is that an image decodes, not what it shows
LOG_SECONDS = 10.0

AddProblem = Callable[[str], None]
Line = tuple[int, str, Path, object]  # number from 0, place for messages, folder, contents


@dataclass(frozen=True)
class Sample:
    """An image and what is known of it.

    Attributes:
        line: its place in the manifest, from 0; that of its row of the features too.
        image: its file, or its index into the array of images.
        tags: indices into the vocabulary, ascending.
        caption: a sentence in English, or None.
        split: None if the manifest has none.
    """

    line: int
    image: Path | int
    tags: tuple[int, ...]
    caption: str | None = None
    split: str | None = None


def read_samples(
    data: Data, tags: Sequence[str], tags_zh: Sequence[str], log: Callable[[str], None] = print
) -> list[Sample]:
    """Read and check a manifest or a folder.

    A manifest's line is a JSON object: `image` (a path from the manifest's folder, or an index
    into the array of images), `tags` (English names), `tags_zh` (Chinese ones, which are used if
    there are no English ones), `caption`, `split`. All but `image` and one list of tags are
    optional.

    In a folder each image has its tags in a .txt of the same name, one tag per line, in English or
    Chinese; the subfolder that it is in names its split.

    Args:
        data: where they are.
        tags: the vocabulary's English names.
        tags_zh: its Chinese ones.
        log: reports the progress of a long check.

    Raises:
        ManifestError: something is wrong; the message has a line for each problem.
        ConfigError: the array of images cannot be used.
        OSError: the manifest or the array cannot be read.
    """
    problems: list[str] = []
    # If two tags share a Chinese name, it is the first's: English names tell them apart.
    english = {name: index for index, name in enumerate(tags)}
    chinese = {name: index for index, name in reversed(list(enumerate(tags_zh)))}
    if data.folder is not None:
        lines = _read_folder(data.folder, problems)
    elif data.manifest is not None:
        lines = _read_manifest(data.manifest, problems)
    count = _count_images(data.images)
    samples: list[Sample] = []
    files: list[tuple[Path, AddProblem]] = []
    for number, place, base, line in lines:
        add_problem = _adder(problems, place)
        sample = _read_line(number, line, base, english, chinese, count, add_problem)
        if sample is not None:
            samples.append(sample)
            if isinstance(sample.image, Path):
                files.append((sample.image, add_problem))
    _check_files(files, log)
    if not samples and not problems:
        problems.append(f"{data.manifest or data.folder}: contains no images")
    if problems:
        raise ManifestError(problems)
    return samples


def map_array(path: Path) -> NDArray[Any]:
    """Map an array of numbers, .npy, into memory.

    Raises:
        ConfigError: the file is something else.
        OSError: it cannot be read.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{path}: is not a NumPy array ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ConfigError(f"{path}: is not an array of numbers")
    return array


def _adder(problems: list[str], place: str) -> AddProblem:
    return lambda problem: problems.append(f"{place}: {problem}")


def _read_manifest(path: Path, problems: list[str]) -> Iterator[Line]:
    for number, line in enumerate(path.read_bytes().splitlines()):
        place = f"{path}, line {number + 1}"
        try:
            yield number, place, path.parent, json.loads(line)
        except ValueError as error:  # of JSON and of UTF-8
            problems.append(f"{place}: invalid JSON ({error})")


def _read_folder(folder: Path, problems: list[str]) -> Iterator[Line]:
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder")
        return
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    for number, image in enumerate(images):
        notes = image.with_suffix(".txt")
        if not notes.is_file():
            problems.append(f"{image}: its tags are missing, expected in {notes.name}")
            continue
        names = [line.strip() for line in read_lines(notes) if line.strip()]
        place = image.relative_to(folder)
        split = place.parts[0] if len(place.parts) > 1 else None
        yield number, str(notes), folder, {"image": str(place), "either": names, "split": split}


def _read_line(
    number: int,
    line: object,
    base: Path,
    english: dict[str, int],
    chinese: dict[str, int],
    count: int | None,
    add_problem: AddProblem,
) -> Sample | None:
    """Check a line; return None if it is not an object with an image."""
    if not isinstance(line, dict) or type(line.get("image")) not in (str, int):
        add_problem("expected an object with an 'image', a path or an index")
        return None
    image = line["image"]
    if isinstance(image, str):
        image = base / image
    elif count is None or not 0 <= image < count:
        add_problem(f"image {image} is not in the array of {count or 0} images")
    if not {"tags", "tags_zh", "either"} & set(line):
        add_problem("has neither 'tags' nor 'tags_zh'")
    found: set[int] = set()
    for field, names in (
        ("tags", english),
        ("tags_zh", chinese),
        ("either", {**chinese, **english}),
    ):
        wanted = line.get(field, [])
        if not isinstance(wanted, list) or not all(isinstance(tag, str) for tag in wanted):
            add_problem(f"'{field}' must be a list of names")
            continue
        for tag in wanted:
            if tag not in names:
                add_problem(f"the tag '{tag}' is not in the vocabulary")
        # Chinese names are not unique; they are only checked if there are English ones.
        if field != "tags_zh" or "tags" not in line:
            found |= {names[tag] for tag in wanted if tag in names}
    for field in ("caption", "split"):
        if not isinstance(line.get(field), str | None):
            add_problem(f"'{field}' must be text")
    return Sample(number, image, tuple(sorted(found)), line.get("caption"), line.get("split"))


def _count_images(path: Path | None) -> int | None:
    if path is None:
        return None
    images = map_array(path)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (3, 4):
        raise ConfigError(
            f"{path}: {images.dtype} {images.shape} is not an array of images, "
            "uint8 (images, height, width, 3 or 4)"
        )
    return len(images)


def _check_files(files: list[tuple[Path, AddProblem]], log: Callable[[str], None]) -> None:
    """Decode every image file once: a broken one would stop the training hours later."""
    logged_at = time.monotonic()
    with ThreadPoolExecutor() as pool:
        found = pool.map(_problem_of, (path for path, _ in files))
        for number, (problem, (_, add_problem)) in enumerate(zip(found, files, strict=True), 1):
            if problem:
                add_problem(problem)
            if time.monotonic() - logged_at >= LOG_SECONDS:
                log(f"data: checked {number:,} of {len(files):,} images")
                logged_at = time.monotonic()


def _problem_of(path: Path) -> str | None:
    if not path.is_file():
        return f"the image {path} is missing"
    try:
        preprocess(path.read_bytes(), CHECKED_SIZE, LIMITS)
    except (OSError, ImageError) as error:
        return f"the image {path} cannot be used ({error})"
    return None
