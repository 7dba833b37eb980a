"""A user's vocabulary for a trained model: its labels are chosen and embedded once, offline."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
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

Embeddings = npt.NDArray[np.float32]  # one row per label


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
    known = KnownLabels(own, model.descriptions().detach().numpy(), new_threshold)
    unknown = _find_unknown(listed, known)
    labels = _choose(listed, known, lambda _: _embed(unknown, model.variant.label_width, embed))
    _write(model, *labels, output)
    print(
        f"{output}: {len(listed)} tags, {len(listed) - len(unknown)} of them the checkpoint's own; "
        f"make model CHECKPOINT='{output / CHECKPOINT}' VOCABULARY='{output}'"
    )


def _choose(
    names: Sequence[ListedName], known: KnownLabels, embed_new: Embed
) -> tuple[Vocabulary, Embeddings]:
    """Return names, thresholds and embeddings as ram_open serves them; the list's own come first.

    A new label without a Chinese name has its English one.
    """
    english = [listed.name for listed in names]
    served = known.embed(english, english, embed_new)
    tags, tags_zh = ([name.decode() for name in served[key]] for key in ("names", "names_zh"))
    thresholds = served["thresholds"]
    for index, listed in enumerate(names):
        tags_zh[index] = listed.name_zh or tags_zh[index]
        if listed.threshold is not None:
            thresholds[index] = listed.threshold
    return Vocabulary(tags, tags_zh, thresholds), served["label_embeds"]


def _write(model: RAM, vocabulary: Vocabulary, embeddings: Embeddings, folder: Path) -> None:
    """Write the model with these labels, and its tag lists: the whole folder, or nothing."""
    model.variant = replace(model.variant, num_tags=len(vocabulary.tags))
    rows = embeddings.reshape(-1, model.variant.label_width)  # one per description
    model.label_embed = torch.nn.Parameter(torch.from_numpy(rows))
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


def _find_unknown(names: Sequence[ListedName], known: KnownLabels) -> list[ListedName]:
    """Return the names that are of no tag of the model; refuse those that are not of one alone."""
    problems: list[str] = []
    unknown: list[ListedName] = []
    first: dict[int, str] = {}
    for listed in names:
        try:
            row = known.find(listed.name)
        except RequestError as error:
            problems.append(f"{listed.place}: {str(error).removeprefix('labels: ')}")
            continue
        if row is None:
            unknown.append(listed)
        elif first.setdefault(row, listed.name) != listed.name:
            problems.append(f"{listed.place}: '{listed.name}' is the same tag as '{first[row]}'")
    if problems:
        raise VocabularyError(one_per_line(problems))
    return unknown


def _embed(unknown: Sequence[ListedName], width: int, embed: Embed | None) -> Embeddings:
    if embed is None:
        problems = [
            f"{listed.place}: the checkpoint does not know '{listed.name}'" for listed in unknown
        ]
        remedy = "other names need the text encoder of the checkpoint's labels: TEXT_ENCODER=DIR"
        raise VocabularyError(f"{one_per_line(problems)}\n{remedy}")
    embeddings = embed_names([listed.name for listed in unknown], embed)
    if embeddings.shape[1] != width:
        raise VocabularyError(
            f"the text encoder's embeddings have the shape {embeddings.shape} for {len(unknown)} "
            f"names, but the checkpoint's labels are {width} wide"
        )
    return embeddings
