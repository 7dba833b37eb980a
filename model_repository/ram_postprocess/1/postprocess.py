"""Logits to tags: thresholds, the request's options, English and Chinese names.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .request import RequestError, fold

PADDING_ID = -1
MOST_MAPS = 256  # heat maps per image: the largest number of tags in ram_maps/config.pbtxt


@dataclass(frozen=True)
class Vocabulary:
    """A model's tags, in the order of its logits.

    Attributes:
        tags: English names, unique.
        tags_zh: Chinese names; several tags may share one.
        thresholds: the score that each tag must exceed, (N,) float32.
    """

    tags: Sequence[str]
    tags_zh: Sequence[str]
    thresholds: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.json`: a list of objects with `tag`, `tag_zh` and `threshold`."""
        entries = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            tags=[entry["tag"] for entry in entries],
            tags_zh=[entry["tag_zh"] for entry in entries],
            thresholds=np.array([entry["threshold"] for entry in entries], np.float32),
        )

    def save(self, path: Path) -> None:
        """Write what `load` reads, one tag per line."""
        rows = zip(self.tags, self.tags_zh, self.thresholds.tolist(), strict=True)
        lines = (
            # By way of its text a float32 keeps the digits of the list that it comes from.
            json.dumps(
                {"tag": tag, "tag_zh": tag_zh, "threshold": float(str(np.float32(threshold)))},
                ensure_ascii=False,
            )
            for tag, tag_zh, threshold in rows
        )
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")

    def find_english(self, name: str) -> list[int]:
        """Return the ids of the tags that have this English name; see `request.fold`."""
        return self._ids[0].get(fold(name), [])

    def find_chinese(self, name: str) -> list[int]:
        """Return the ids of the tags that have this Chinese name."""
        return self._ids[1].get(fold(name), [])

    def find(self, name: str) -> list[int]:
        """Return the ids of the tags that have this English or Chinese name.

        Raises:
            RequestError: there is none; the message proposes the closest names.
        """
        ids = self.find_english(name) + self.find_chinese(name)
        if not ids:
            names = {fold(known): known for known in (*self.tags_zh, *self.tags)}
            close = difflib.get_close_matches(fold(name), names, n=3)
            proposed = " or ".join(repr(names[key]) for key in close)
            hint = f"; did you mean {proposed}?" if close else ""
            raise RequestError(f"exclude: unknown tag {name[:100]!r}{hint}")
        return ids

    @cached_property
    def _ids(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        return _index(self.tags), _index(self.tags_zh)

    @cached_property
    def encoded(self) -> tuple[np.ndarray, np.ndarray]:
        """English and Chinese names as Triton sends them: (N,) object arrays of UTF-8 bytes."""
        english, chinese = (
            np.array([name.encode() for name in names], np.object_)
            for names in (self.tags, self.tags_zh)
        )
        return english, chinese


def _index(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of each name in a list, by what `fold` makes of the name."""
    ids: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        ids.setdefault(fold(name), []).append(index)
    return ids


@dataclass(frozen=True)
class TagOptions:
    """What a request may ask for one of its images.

    Attributes:
        threshold: replaces the tags' own thresholds if given, 0 to 1.
        top_k: largest number of tags to return; 0 means no limit.
        exclude: English or Chinese names of tags to leave out; empty names are ignored. If several
            tags have the same name, all of them are left out.
    """

    threshold: float | None = None
    top_k: int = 0
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            RequestError: the message names the input.
        """
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise RequestError(f"threshold: {self.threshold:g} is not between 0 and 1")
        if self.top_k < 0:
            raise RequestError(f"top_k: {self.top_k} is negative")

    @classmethod
    def read(cls, inputs: Mapping[str, np.ndarray], batch: int) -> "list[TagOptions]":
        """Read the optional inputs of a request.

        Args:
            inputs: by name, if given: `threshold` (B, 1) float32, `top_k` (B, 1) int32 and
                `exclude` (B, K) UTF-8 bytes.
            batch: B, the number of images.

        Returns:
            One `TagOptions` per image.

        Raises:
            RequestError: a value is out of range, or a name is not UTF-8.
        """
        return [
            cls(**{name: _read_option(name, rows[index]) for name, rows in inputs.items()})
            for index in range(batch)
        ]


def _read_option(name: str, row: np.ndarray) -> float | int | list[str]:
    """Turn one image's row of an optional input into Python's own types."""
    if name != "exclude":
        return row.item()
    try:
        return [value.decode() for value in row]
    except UnicodeDecodeError as error:
        raise RequestError(f"exclude: {error.object[:100]!r} is not UTF-8") from error


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map float32 logits to scores between 0 and 1."""
    with np.errstate(over="ignore"):  # for a very negative logit exp(…) is inf, and the score 0
        return 1 / (1 + np.exp(-logits))


def select(
    logits: np.ndarray, vocabulary: Vocabulary, options: TagOptions = TagOptions()
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the tags of one image.

    A tag is chosen if its score is above its threshold, and not if it equals it, as in RAM's
    reference.

    Args:
        logits: (N,) float32.
        vocabulary: names and thresholds of the N tags.
        options: what the request asked for.

    Returns:
        Ids, int32, and scores, float32, of the chosen tags: by score, highest first, and by id if
        scores are equal.

    Raises:
        RequestError: `exclude` names an unknown tag.
    """
    scores = sigmoid(logits)
    threshold = vocabulary.thresholds if options.threshold is None else options.threshold
    passing = scores > np.float32(threshold)
    for name in options.exclude:
        if name:
            passing[vocabulary.find(name)] = False
    ids = np.flatnonzero(passing).astype(np.int32)
    # By logit: scores near 1 are too close for float32.
    ids = ids[np.argsort(-logits[ids], kind="stable")][: options.top_k or None]
    return ids, scores[ids]


def postprocess(
    logits: np.ndarray, vocabulary: Vocabulary, options: Sequence[TagOptions]
) -> dict[str, np.ndarray]:
    """Name the tags of a batch of images.

    Args:
        logits: (B, N) float32.
        vocabulary: names and thresholds of the N tags.
        options: one per image.

    Returns:
        `tags` and `tags_zh` (B, M) UTF-8 bytes, `scores` (B, M) float32, `tag_ids` (B, M) int32,
        padded to the longest row with empty names, score 0 and id -1; `count` (B, 1) int32, the
        number of tags in each row.

    Raises:
        RequestError: an option is out of range.
        ValueError: the model's number of tags differs from the vocabulary's.
        FloatingPointError: a logit is NaN or infinite.
    """
    if logits.shape[1] != len(vocabulary.tags):
        raise ValueError(
            f"logits: {logits.shape[1]} tags, but the vocabulary has {len(vocabulary.tags)}; "
            "ram_head and ram_postprocess come from different builds"
        )
    if not np.isfinite(logits).all():
        raise FloatingPointError("logits: NaN or infinite; the model's precision has overflowed")
    rows = [select(row, vocabulary, wanted) for row, wanted in zip(logits, options, strict=True)]
    count = np.array([[len(ids)] for ids, _ in rows], np.int32)
    shape = (len(rows), int(count.max(initial=0)))
    tags, tags_zh = np.full(shape, b"", np.object_), np.full(shape, b"", np.object_)
    scores, tag_ids = np.zeros(shape, np.float32), np.full(shape, PADDING_ID, np.int32)
    english, chinese = vocabulary.encoded
    for row, (ids, row_scores) in enumerate(rows):
        filled = slice(len(ids))
        tags[row, filled], tags_zh[row, filled] = english[ids], chinese[ids]
        scores[row, filled], tag_ids[row, filled] = row_scores, ids
    return {"tags": tags, "tags_zh": tags_zh, "scores": scores, "tag_ids": tag_ids, "count": count}


def choose_for_maps(tag_ids: np.ndarray) -> np.ndarray:
    """Choose the tags that get a heat map: of each image the highest-scoring ones.

    Args:
        tag_ids: as `postprocess` returns them, (B, M) int32.

    Returns:
        Their first `MOST_MAPS` columns; one of padding if there are none, because a TensorRT plan
        takes no empty tensor.
    """
    if not tag_ids.shape[1]:
        return np.full((len(tag_ids), 1), PADDING_ID, np.int32)
    return tag_ids[:, :MOST_MAPS]
