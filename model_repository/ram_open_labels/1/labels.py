"""A request's own labels: their names, and their embeddings.

This file does not import Triton: the server, the build and the tests run this very file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .postprocess import Vocabulary
from .request import RequestError, fold, read_parameter

SHOWN = 100  # characters of a name in a message
SHOWN_NAMES = 3

# Names to embeddings, (names, width) float32.
Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class LabelLimits:
    """The most that a request may ask for.

    Attributes:
        max_labels: number of labels.
        max_new_labels: number of labels that are not in the vocabulary.
        max_name_bytes: length of a name, in bytes of UTF-8.
    """

    max_labels: int
    max_new_labels: int
    max_name_bytes: int

    @classmethod
    def read(cls, model_config: str) -> "LabelLimits":
        """Read the parameters of these names; see `read_parameter`."""
        return cls(
            **{name: read_parameter(model_config, name, int) for name in cls.__annotations__}
        )

    def require_few_new(self, names: Sequence[str]) -> None:
        """Check the number of names for the text encoder.

        Raises:
            RequestError: there are too many.
        """
        if len(names) > self.max_new_labels:
            raise RequestError(
                f"labels: {len(names)} not in the vocabulary are over the limit of "
                f"{self.max_new_labels} (max_new_labels): 'make vocabulary' takes long lists"
            )


@dataclass(frozen=True)
class KnownLabels:
    """The served vocabulary with its label embeddings.

    Attributes:
        vocabulary: names and thresholds of N tags.
        embeddings: (N, descriptions, width) float32, as the model was trained: one description per
            tag in RAM, 51 in RAM++.
        default_threshold: for labels that are not in the vocabulary.
    """

    vocabulary: Vocabulary
    embeddings: np.ndarray
    default_threshold: float

    @classmethod
    def load(cls, folder: Path, default_threshold: float) -> "KnownLabels":
        """Read `vocabulary.json` and `label_embeds.npy`, which the build wrote."""
        # Mapped, because RAM++'s take half a gigabyte, and several processes serve them.
        embeddings = np.load(folder / "label_embeds.npy", mmap_mode="r")
        return cls(Vocabulary.load(folder / "vocabulary.json"), embeddings, default_threshold)

    def find(self, name: str) -> int | None:
        """Return the id of the tag that has this English or Chinese name, None if there is none.

        English names come first. If several tags have the same name, one that is spelt exactly so
        is meant.

        Raises:
            RequestError: several tags have this name, and none is spelt exactly so in English.
        """
        tags = self.vocabulary.tags
        ids = self.vocabulary.find_english(name) or self.vocabulary.find_chinese(name)
        exact = [id for id in ids if tags[id] == name]
        if len(ids) > 1 and not exact:
            choice = " or ".join(repr(tags[id]) for id in ids)
            raise RequestError(f"labels: {name!r} is the name of several tags: use {choice}")
        return next(iter(exact or ids), None)

    def embed(
        self, names: Sequence[str], names_zh: Sequence[str], embed_new: Embed
    ) -> dict[str, np.ndarray]:
        """Embed a request's labels.

        Args:
            names: the labels, as `read_names` returns them.
            names_zh: Chinese names for new labels, as many as `names`.
            embed_new: embeds new labels: those that are not in the vocabulary.

        Returns:
            `label_embeds` (M, descriptions · width) float32, `names` and `names_zh` (M,) UTF-8
            bytes, `thresholds` (M,) float32 and `in_vocabulary` (M,) bool. Labels in the vocabulary
            have their names from there.

        Raises:
            RequestError: two labels are the same, or an embedding has the wrong width.
        """
        ids = [self.find(name) for name in names]
        _require_distinct(names, ids)
        new = [name for name, id in zip(names, ids, strict=True) if id is None]
        in_vocabulary = np.array([id is not None for id in ids])
        found = [id for id in ids if id is not None]
        label_embeds = np.empty((len(names), *self.embeddings.shape[1:]), np.float32)
        label_embeds[in_vocabulary] = self.embeddings[found]
        if new:
            # The same embedding for all descriptions: equal ones weigh the same.
            label_embeds[~in_vocabulary] = self._check(embed_new(new), len(new))[:, None]
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


def read_names(labels: np.ndarray, limits: LabelLimits) -> list[str]:
    """Read the input `labels`, (M,) UTF-8 bytes, without space around the names.

    Raises:
        RequestError: there are no labels or too many; or a name is empty, too long, not UTF-8, or
            contains characters that cannot be printed.
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
            raise RequestError(f"labels[{index}]: {f'{name!r} is not a name' if name else 'empty'}")
    return names


def read_chinese_names(labels_zh: np.ndarray | None, count: int, limits: LabelLimits) -> list[str]:
    """Read the optional input `labels_zh`, (M,) UTF-8 bytes; names may be empty.

    Raises:
        RequestError: there are more or fewer than `count`; or a name is too long, not UTF-8, or
            contains characters that cannot be printed.
    """
    if labels_zh is None:
        return [""] * count
    if len(labels_zh) != count:
        raise RequestError(f"labels_zh: {len(labels_zh)} names for {count} labels")
    return [_read_name("labels_zh", index, label, limits) for index, label in enumerate(labels_zh)]


def refuse_new(names: Sequence[str]) -> np.ndarray:
    """Refuse new names, because there is no text encoder.

    Raises:
        RequestError: always; the message says how to build one.
    """
    shown = ", ".join(repr(name[:SHOWN]) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    raise RequestError(
        f"labels: the vocabulary does not contain {shown}{more}, and there is no text encoder: "
        "make text-encoder CHECKPOINT=DIR builds it"
    )


def _read_name(tensor: str, index: int, label: bytes, limits: LabelLimits) -> str:
    if len(label) > limits.max_name_bytes:
        limit = f"{limits.max_name_bytes} (max_name_bytes)"
        raise RequestError(f"{tensor}[{index}]: {len(label)} bytes are over the limit of {limit}")
    try:
        name = label.decode().strip()
    except UnicodeDecodeError as error:
        raise RequestError(f"{tensor}[{index}]: {label[:SHOWN]!r} is not UTF-8") from error
    if not name.isprintable():
        raise RequestError(
            f"{tensor}[{index}]: {name[:SHOWN]!r} contains characters that cannot be printed"
        )
    return name


def _require_distinct(names: Sequence[str], ids: Sequence[int | None]) -> None:
    first: dict[str | int, int] = {}
    for index, (name, id) in enumerate(zip(names, ids, strict=True)):
        other = first.setdefault(fold(name) if id is None else id, index)
        if other != index:
            raise RequestError(f"labels: {names[other]!r} and {name!r} are the same label")


def _served_names(
    own: Sequence[str], served: Sequence[str], ids: Sequence[int | None]
) -> np.ndarray:
    names = [name if id is None else served[id] for name, id in zip(own, ids, strict=True)]
    return np.array([name.encode() for name in names], np.object_)
