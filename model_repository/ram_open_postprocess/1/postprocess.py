"""Logits to tags: thresholds, the request's options, English and Chinese names.

This file imports no Triton: the server, the build and the tests run this very file.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

PADDING_ID = -1


class RequestError(ValueError):
    """An input is out of its range; the message starts with the input's name."""


@dataclass(frozen=True)
class Vocabulary:
    """What a model's logits stand for, in the order of its logits.

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
        """Write what `load` reads, a tag a line."""
        rows = zip(self.tags, self.tags_zh, self.thresholds.tolist(), strict=True)
        lines = (
            # Through its text a float32 keeps the digits that it was written with.
            json.dumps(
                {"tag": tag, "tag_zh": tag_zh, "threshold": float(str(np.float32(threshold)))},
                ensure_ascii=False,
            )
            for tag, tag_zh, threshold in rows
        )
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")

    def find(self, name: str) -> list[int]:
        """Return the ids of the tags that have this English or Chinese name.

        Raises:
            RequestError: no tag has it; the message proposes the closest names.
        """
        ids = self._ids_by_name.get(name.strip().casefold())
        if ids is None:
            close = difflib.get_close_matches(name.strip().casefold(), self._ids_by_name, n=3)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise RequestError(f"exclude: unknown tag {name[:100]!r}{hint}")
        return ids

    @cached_property
    def _ids_by_name(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for names in (self.tags, self.tags_zh):
            for index, name in enumerate(names):
                ids.setdefault(name.strip().casefold(), []).append(index)
        return ids

    @cached_property
    def encoded(self) -> tuple[np.ndarray, np.ndarray]:
        """English and Chinese names as Triton sends them: (N,) object arrays of UTF-8 bytes."""
        english, chinese = (
            np.array([name.encode() for name in names], np.object_)
            for names in (self.tags, self.tags_zh)
        )
        return english, chinese


@dataclass(frozen=True)
class Options:
    """What a request may ask of one of its images.

    Attributes:
        threshold: replaces the tags' own thresholds where given, 0 to 1.
        top_k: how many tags to return at most; 0 is no limit.
        exclude: English or Chinese names of tags to leave out; empty names are ignored.
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
    def read(cls, inputs: Mapping[str, np.ndarray], batch: int) -> "list[Options]":
        """Read the optional inputs of a request.

        Args:
            inputs: those given of `threshold` (B, 1) float32, `top_k` (B, 1) int32 and `exclude`
                (B, K) UTF-8 bytes.
            batch: B, the number of images.

        Returns:
            One `Options` for each image.

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
    with np.errstate(over="ignore"):  # a very negative logit gives exp(…) = inf, a score of 0
        return 1 / (1 + np.exp(-logits))


def select(
    logits: np.ndarray, vocabulary: Vocabulary, options: Options = Options()
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the tags of one image.

    A tag is chosen if its score exceeds its threshold (as RAM's reference does it: strictly).

    Args:
        logits: (N,) float32.
        vocabulary: names and thresholds of the N tags.
        options: what the request asked for.

    Returns:
        Ids, int32, and scores, float32, of the chosen tags, highest first; of equal ones the
        lower id.

    Raises:
        RequestError: an unknown tag is to be excluded.
    """
    scores = sigmoid(logits)
    threshold = vocabulary.thresholds if options.threshold is None else options.threshold
    passing = scores > np.float32(threshold)
    for name in options.exclude:
        if name:
            passing[vocabulary.find(name)] = False
    ids = np.flatnonzero(passing).astype(np.int32)
    # Logits tell apart what float32 scores near 1 no longer do.
    ids = ids[np.argsort(-logits[ids], kind="stable")][: options.top_k or None]
    return ids, scores[ids]


def postprocess(
    logits: np.ndarray, vocabulary: Vocabulary, options: Sequence[Options]
) -> dict[str, np.ndarray]:
    """Name the tags of a batch of images.

    Args:
        logits: (B, N) float32.
        vocabulary: names and thresholds of the N tags.
        options: one for each of the B images.

    Returns:
        `tags` and `tags_zh` (B, M) UTF-8 bytes, `scores` (B, M) float32, `tag_ids` (B, M) int32,
        padded to the longest row with empty names, score 0 and id -1; `count` (B, 1) int32.

    Raises:
        RequestError: an option is out of range.
        ValueError: the model has another number of tags than the vocabulary.
        FloatingPointError: the model returned a logit that is no finite number.
    """
    if logits.shape[1] != len(vocabulary.tags):
        raise ValueError(
            f"logits: {logits.shape[1]} tags, but the vocabulary has {len(vocabulary.tags)}; "
            "ram_head and ram_postprocess are of different builds"
        )
    if not np.isfinite(logits).all():
        raise FloatingPointError("logits: not finite; the model's precision has overflowed")
    rows = [select(row, vocabulary, wish) for row, wish in zip(logits, options, strict=True)]
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
