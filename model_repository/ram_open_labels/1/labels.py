"""A request's own labels: what they are called, and their embeddings.

This file imports no Triton: the server and the tests run this very file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .postprocess import RequestError, Vocabulary

SHOWN = 100  # characters of a name in a message
SHOWN_NAMES = 3

# Names to embeddings, (names, width) float32.
Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        max_labels: how many labels.
        max_new_labels: how many of them the vocabulary may lack.
        max_name_bytes: length of a name, in bytes of UTF-8.
    """

    max_labels: int = 5000
    max_new_labels: int = 1000
    max_name_bytes: int = 200


@dataclass(frozen=True)
class KnownLabels:
    """The served vocabulary with its label embeddings.

    Attributes:
        vocabulary: names and thresholds of N tags.
        embeddings: (N, descriptions, width) float32, what the model was trained with: one
            description of each tag in RAM, 51 in RAM++.
        default_threshold: of labels that the vocabulary lacks.
    """

    vocabulary: Vocabulary
    embeddings: np.ndarray
    default_threshold: float

    @classmethod
    def load(cls, folder: Path, default_threshold: float) -> "KnownLabels":
        """Read `vocabulary.json` and `label_embeds.npy`, which the build wrote."""
        # Mapped, because RAM++'s are half a gigabyte, and several processes serve them.
        embeddings = np.load(folder / "label_embeds.npy", mmap_mode="r")
        return cls(Vocabulary.load(folder / "vocabulary.json"), embeddings, default_threshold)

    def find(self, name: str) -> int | None:
        """Return the id of the tag that has this English or Chinese name, None where none has.

        Raises:
            RequestError: several tags have this Chinese name.
        """
        key = fold(name)
        if key in self._ids_by_english:
            return self._ids_by_english[key]
        ids = self._ids_by_chinese.get(key, [])
        if len(ids) > 1:
            tags = " or ".join(repr(self.vocabulary.tags[index]) for index in ids)
            raise RequestError(f"labels: {name!r} is the Chinese name of several tags, say {tags}")
        return ids[0] if ids else None

    def embed(self, names: Sequence[str], names_zh: Sequence[str], embed_others: Embed) -> dict:
        """Embed a request's labels.

        Args:
            names: the labels, as `read_names` returns them.
            names_zh: Chinese names of those that the vocabulary lacks, as many as `names`.
            embed_others: embeds those that the vocabulary lacks.

        Returns:
            `label_embeds` (M, descriptions · width) float32, `names` and `names_zh` (M,) UTF-8
            bytes, `thresholds` (M,) float32 and `in_vocabulary` (M,) bool. What the vocabulary has
            is called as it is there.

        Raises:
            RequestError: two labels are the same one, or an embedding has the wrong width.
        """
        ids = [self.find(name) for name in names]
        _require_distinct(names, ids)
        others = [name for name, id in zip(names, ids, strict=True) if id is None]
        in_vocabulary = np.array([id is not None for id in ids])
        found = [id for id in ids if id is not None]
        label_embeds = np.empty((len(names), *self.embeddings.shape[1:]), np.float32)
        label_embeds[in_vocabulary] = self.embeddings[found]
        if others:
            # One embedding stands for all descriptions: equal ones weigh the same.
            label_embeds[~in_vocabulary] = self._check(embed_others(others), len(others))[:, None]
        thresholds = np.full(len(names), self.default_threshold, np.float32)
        thresholds[in_vocabulary] = self.vocabulary.thresholds[found]
        return {
            "label_embeds": label_embeds.reshape(len(names), -1),
            "names": _served_names(names, self.vocabulary.tags, ids),
            "names_zh": _served_names(names_zh, self.vocabulary.tags_zh, ids),
            "thresholds": thresholds,
            "in_vocabulary": in_vocabulary,
        }

    def _check(self, embeddings: np.ndarray, count: int) -> np.ndarray:
        width = self.embeddings.shape[2]
        if embeddings.shape != (count, width):
            raise RequestError(
                f"labels: the text encoder's embeddings have shape {embeddings.shape}, this model "
                f"takes ({count}, {width}): build the text encoder that it was trained with"
            )
        return embeddings

    @cached_property
    def _ids_by_english(self) -> dict[str, int]:
        return {fold(name): index for index, name in enumerate(self.vocabulary.tags)}

    @cached_property
    def _ids_by_chinese(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for index, name in enumerate(self.vocabulary.tags_zh):
            ids.setdefault(fold(name), []).append(index)
        return ids


def read_names(labels: np.ndarray, limits: Limits = Limits()) -> list[str]:
    """Read the input `labels`, (M,) UTF-8 bytes, without space around the names.

    Raises:
        RequestError: there are none or too many; a name is empty, too long, not UTF-8, or holds
            what cannot be printed.
    """
    if not len(labels):
        raise RequestError("labels: empty, name at least one")
    if len(labels) > limits.max_labels:
        raise RequestError(
            f"labels: {len(labels)} are over the limit of {limits.max_labels} (max_labels)"
        )
    names = [_read_name("labels", index, label, limits) for index, label in enumerate(labels)]
    for index, name in enumerate(names):
        if not fold(name):
            raise RequestError(f"labels[{index}]: {f'{name!r} is no name' if name else 'empty'}")
    return names


def read_chinese_names(
    labels_zh: np.ndarray | None, count: int, limits: Limits = Limits()
) -> list[str]:
    """Read the optional input `labels_zh`, (M,) UTF-8 bytes, each of which may be empty.

    Raises:
        RequestError: they are not `count`; a name is too long, not UTF-8, or holds what cannot be
            printed.
    """
    if labels_zh is None:
        return [""] * count
    if len(labels_zh) != count:
        raise RequestError(f"labels_zh: {len(labels_zh)} names for {count} labels")
    return [_read_name("labels_zh", index, label, limits) for index, label in enumerate(labels_zh)]


def require_few_new(names: Sequence[str], limits: Limits) -> None:
    """Check how many names the text encoder is asked for.

    Raises:
        RequestError: too many; the message says what long lists are for.
    """
    if len(names) > limits.max_new_labels:
        raise RequestError(
            f"labels: {len(names)} not in the vocabulary are over the limit of "
            f"{limits.max_new_labels} (max_new_labels): make vocabulary takes long lists"
        )


def refuse(names: Sequence[str]) -> np.ndarray:
    """Embed nothing: there is no text encoder.

    Raises:
        RequestError: always; the message says what to build.
    """
    shown = ", ".join(repr(name[:SHOWN]) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    raise RequestError(
        f"labels: {shown}{more} not in the vocabulary, and there is no text encoder: "
        "make text-encoder CHECKPOINT=DIR builds it"
    )


def fold(name: str) -> str:
    """Return what two names share that differ in what the text encoder is not shown, alone.

    That is their case, `_` for a space, space around them and a full stop after them.
    """
    return name.replace("_", " ").rstrip(". ").strip().casefold()


def _read_name(tensor: str, index: int, label: bytes, limits: Limits) -> str:
    if len(label) > limits.max_name_bytes:
        limit = f"{limits.max_name_bytes} (max_name_bytes)"
        raise RequestError(f"{tensor}[{index}]: {len(label)} bytes are over the limit of {limit}")
    try:
        name = label.decode().strip()
    except UnicodeDecodeError as error:
        raise RequestError(f"{tensor}[{index}]: {label[:SHOWN]!r} is not UTF-8") from error
    if not name.isprintable():
        raise RequestError(
            f"{tensor}[{index}]: {name[:SHOWN]!r} holds characters that cannot be printed"
        )
    return name


def _require_distinct(names: Sequence[str], ids: Sequence[int | None]) -> None:
    first: dict[str | int, str] = {}
    for name, id in zip(names, ids, strict=True):
        other = first.setdefault(fold(name) if id is None else id, name)
        if other is not name:
            raise RequestError(f"labels: {other!r} and {name!r} are the same label")


def _served_names(
    own: Sequence[str], served: Sequence[str], ids: Sequence[int | None]
) -> np.ndarray:
    names = [name if id is None else served[id] for name, id in zip(own, ids, strict=True)]
    return np.array([name.encode() for name in names], np.object_)
