"""A user's vocabulary for a trained model: its labels are chosen and embedded once, offline."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ram_triton.errors import VocabularyError, one_per_line
from ram_triton.model.checkpoint import load_model, save_model
from ram_triton.model.ram import RAM
from ram_triton.server_code import KnownLabels, RequestError, Vocabulary
from ram_triton.vocabulary.embed import Embed, choose_embed, embed_names
from ram_triton.vocabulary.names import ListedName, read_names
from ram_triton.vocabulary.tag_lists import (
    DEFAULT_THRESHOLD,
    NEW_THRESHOLD,
    read_vocabulary,
    write_vocabulary,
)

CHECKPOINT = "ram.safetensors"


@dataclass(frozen=True)
class Labels:
    """The labels that a model is to recognise.

    Attributes:
        vocabulary: names and thresholds.
        embeddings: (labels · descriptions, label_width), as in a checkpoint.
        known: number of labels that are the model's own.
    """

    vocabulary: Vocabulary
    embeddings: npt.NDArray[np.float32]
    known: int


def make_vocabulary(
    names: Path,
    output: Path,
    checkpoint: Path,
    vocabulary: Path,
    text_encoder: str | None = None,
    templates: Path | None = None,
    threshold: float | None = None,
) -> None:
    """Write a folder with a checkpoint that recognises a list of names, and its tag lists.

    Args:
        names: the list, as `read_names` takes it.
        output: the folder to make.
        checkpoint: of a RAM or RAM++.
        vocabulary: folder with its tag lists.
        text_encoder: for names that the checkpoint does not know, as `choose_embed` takes it.
        templates: sentences for it, likewise.
        threshold: for names without one; None: `NEW_THRESHOLD` if the checkpoint does not know
            them, else `DEFAULT_THRESHOLD`.

    Raises:
        CheckpointError, VocabularyError, TextEncoderError: something cannot be used.
    """
    known_threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    new_threshold = NEW_THRESHOLD if threshold is None else threshold
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocabularyError(f"{output}: exists already; remove it, or choose another OUTPUT")
    listed = read_names(names)
    embed = choose_embed(text_encoder, templates) if text_encoder else None
    model = load_model(checkpoint)
    own = read_vocabulary(vocabulary, model.variant.num_tags, known_threshold)
    labels = choose_labels(listed, model, own, new_threshold, embed)
    write_labels(model, labels, output)
    print(
        f"{output}: {len(listed)} tags, {labels.known} of them the checkpoint's own; "
        f"make model CHECKPOINT='{output / CHECKPOINT}' VOCABULARY='{output}'"
    )


def choose_labels(
    names: Sequence[ListedName],
    model: RAM,
    own: Vocabulary,
    default_threshold: float,
    embed: Embed | None = None,
) -> Labels:
    """Find each name's embedding, Chinese name and threshold.

    The list comes first. If the model knows a name, in English or Chinese, the rest is taken from
    its vocabulary. Another name is embedded, and gets the default threshold and, without a Chinese
    name, its English one.

    Args:
        names: the list.
        model: its label embeddings are used.
        own: the vocabulary that belongs to the model.
        default_threshold: for names that the model does not know.
        embed: the text encoder that produced the embeddings of the model's own labels, or None.

    Raises:
        VocabularyError: names are unknown and there is no text encoder; its embeddings cannot be
            used; a name is that of several tags, or two names are those of one tag.
    """
    own_rows = model.descriptions().detach().numpy()
    rows = _find(names, KnownLabels(own, own_rows, default_threshold))
    unknown = [listed for listed, row in zip(names, rows, strict=True) if row is None]
    embedded = iter(_embed(unknown, model, embed) if unknown else ())
    tags, tags_zh, thresholds, embeddings = [], [], [], []
    for listed, row in zip(names, rows, strict=True):
        if row is None:
            tag, tag_zh, threshold = listed.name, listed.name, default_threshold
            embedding = next(embedded)
        else:
            tag, tag_zh, threshold = own.tags[row], own.tags_zh[row], own.thresholds[row]
            embedding = own_rows[row]
        tags.append(tag)
        tags_zh.append(listed.name_zh or tag_zh)
        thresholds.append(threshold if listed.threshold is None else listed.threshold)
        embeddings.append(embedding)
    vocabulary = Vocabulary(tags, tags_zh, np.array(thresholds, np.float32))
    return Labels(vocabulary, np.concatenate(embeddings), len(names) - len(unknown))


def write_labels(model: RAM, labels: Labels, folder: Path) -> None:
    """Write a checkpoint with these labels and the model's other weights, and its tag lists.

    Args:
        model: gets the labels.
        labels: from `choose_labels`.
        folder: to make; it appears as a whole, or not at all.

    Raises:
        VocabularyError: the folder is not empty, or cannot be written.
    """
    vocabulary = labels.vocabulary
    model.variant = replace(model.variant, num_tags=len(vocabulary.tags))
    model.label_embed = torch.nn.Parameter(torch.from_numpy(labels.embeddings))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vocabulary-", dir=folder.parent) as staging:
            whole = Path(staging) / "whole"
            whole.mkdir()
            save_model(model, whole / CHECKPOINT)
            write_vocabulary(vocabulary, whole)
            whole.replace(folder)  # onto nothing, or an empty folder
    except OSError as error:
        raise VocabularyError(f"{folder}: cannot be written ({error.strerror})") from error


def _find(names: Sequence[ListedName], known: KnownLabels) -> list[int | None]:
    """Return the id of each name's tag in the model, None if it has no such tag."""
    problems: list[str] = []
    rows: list[int | None] = []
    first: dict[int, str] = {}
    for listed in names:
        row = None
        try:
            row = known.find(listed.name)
        except RequestError as error:
            problems.append(f"{listed.place}: {str(error).removeprefix('labels: ')}")
        if row is not None and first.setdefault(row, listed.name) != listed.name:
            problems.append(f"{listed.place}: '{listed.name}' is the same tag as '{first[row]}'")
        rows.append(row)
    if problems:
        raise VocabularyError(one_per_line(problems))
    return rows


def _embed(
    unknown: Sequence[ListedName], model: RAM, embed: Embed | None
) -> npt.NDArray[np.float32]:
    """Return (names, descriptions, label_width), with the same embedding for all descriptions."""
    if embed is None:
        problems = [
            f"{listed.place}: the checkpoint does not know '{listed.name}'" for listed in unknown
        ]
        remedy = "other names need the text encoder of the checkpoint's labels: TEXT_ENCODER=DIR"
        raise VocabularyError(f"{one_per_line(problems)}\n{remedy}")
    variant = model.variant
    embeddings = embed_names([listed.name for listed in unknown], embed)
    if embeddings.shape[1] != variant.label_width:
        raise VocabularyError(
            f"the text encoder's embeddings have the shape {embeddings.shape} for {len(unknown)} "
            f"names, but the checkpoint's labels are {variant.label_width} wide"
        )
    return np.repeat(embeddings[:, None], variant.descriptions, axis=1)
