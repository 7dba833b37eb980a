"""A vocabulary of one's own for a trained model: its labels chosen and embedded once, offline."""

import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ram_triton.errors import VocabularyError
from ram_triton.model.checkpoint import load_model, save_model
from ram_triton.model.ram import RAM
from ram_triton.server_code import KnownLabels, RequestError, Vocabulary
from ram_triton.vocabulary.names import ListedName, raise_problems, read_names
from ram_triton.vocabulary.tag_lists import (
    CHINESE,
    DEFAULT_THRESHOLD,
    ENGLISH,
    NEW_THRESHOLD,
    THRESHOLDS,
    read_vocabulary,
)

CHECKPOINT = "ram.safetensors"
DEMO = "demo"  # the text encoder of the demo's labels

# Names in English to label embeddings, (names, width) float32.
Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Labels:
    """What a model is to recognise.

    Attributes:
        vocabulary: names and thresholds.
        embeddings: float32 (labels · descriptions, label_width), as in a checkpoint.
        known: how many of the labels are the model's own.
    """

    vocabulary: Vocabulary
    embeddings: np.ndarray
    known: int


def load_embed(spec: str) -> Embed:
    """Import a text encoder.

    Args:
        spec: `module:function`, of an installed module or one in the current folder; the function
            takes a list of names in English, and returns float32 (names, width).

    Raises:
        VocabularyError: there is no such function, or its module cannot be imported.
    """
    module, colon, function = spec.partition(":")
    if not colon:
        raise VocabularyError(f"the text encoder '{spec}' is no folder and no MODULE:FUNCTION")
    sys.path.insert(0, str(Path.cwd()))  # before ours: a user's module may have any name
    try:
        embed = getattr(importlib.import_module(module), function, None)
    except (Exception, SystemExit) as error:  # the module's own code may raise anything
        raise VocabularyError(
            f"the text encoder '{spec}' cannot be imported ({_in_one_line(error)})"
        ) from error
    if not callable(embed):
        raise VocabularyError(f"the text encoder '{spec}' is no MODULE:FUNCTION")
    return embed


def make_vocabulary(
    names: Path,
    output: Path,
    checkpoint: Path,
    vocabulary: Path,
    text_encoder: str | None = None,
    threshold: float | None = None,
) -> None:
    """Write a folder with a checkpoint that recognises a list of names, and its tag lists.

    Args:
        names: the list, as `read_names` takes it.
        output: the folder to make.
        checkpoint: of a RAM or RAM++.
        vocabulary: folder with its tag lists.
        text_encoder: a folder, `demo` or a `module:function`, for names that it does not know.
        threshold: of names that come without one; None: `NEW_THRESHOLD` if the checkpoint does
            not know them, else `DEFAULT_THRESHOLD`.

    Raises:
        CheckpointError, VocabularyError, TextEncoderError: something cannot be used.
    """
    known_threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    new_threshold = NEW_THRESHOLD if threshold is None else threshold
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocabularyError(f"{output}: is there already; remove it, or choose another OUTPUT")
    listed = read_names(names)
    embed = choose_embed(text_encoder) if text_encoder else None
    model = load_model(checkpoint)
    own = read_vocabulary(vocabulary, model.variant.num_tags, known_threshold)
    labels = choose_labels(listed, model, own, new_threshold, embed)
    write_labels(model, labels, output)
    print(
        f"{output}: {len(listed)} tags, {labels.known} of them the checkpoint's own; "
        f"make model CHECKPOINT='{output / CHECKPOINT}' VOCABULARY='{output}'"
    )


def choose_embed(spec: str) -> Embed:
    """Return a text encoder: of a checkpoint's folder, the demo's, or a function.

    Raises:
        VocabularyError, TextEncoderError: it cannot be used.
    """
    if not Path(spec).is_dir() and spec != DEMO:
        return load_embed(spec)
    try:
        from ram_triton.text_encoder.chosen import choose_text_encoder, embedder
    except ImportError as error:
        raise VocabularyError(
            f"the text encoder needs the package {error.name}: 'make vocabulary TEXT_ENCODER=…' "
            "installs it"
        ) from error
    return embedder(*choose_text_encoder(spec))


def choose_labels(
    names: Sequence[ListedName],
    model: RAM,
    own: Vocabulary,
    default_threshold: float,
    embed: Embed | None = None,
) -> Labels:
    """Find each name's embedding, Chinese name and threshold.

    What the list says holds. A name that the model knows, in English or Chinese, has the rest from
    its vocabulary; another is embedded, has the default threshold and, for want of a Chinese name,
    its English one.

    Args:
        names: the list.
        model: its label embeddings are used.
        own: the vocabulary that belongs to the model.
        default_threshold: for names that the model does not know.
        embed: the text encoder that the model's own labels were embedded with, if it is at hand.

    Raises:
        VocabularyError: names are unknown and there is no text encoder; or its embeddings are not
            those of the model's labels; a Chinese name is that of several tags, or two names are
            those of one.
    """
    own_rows = model.descriptions().detach().numpy()
    rows = _find(names, KnownLabels(own, own_rows, default_threshold))
    unknown = [listed for listed, row in zip(names, rows, strict=True) if row is None]
    embedded = iter(())
    if unknown:
        embedded = iter(_embed(unknown, model, embed))
    return Labels(
        Vocabulary(
            [
                listed.name if row is None else own.tags[row]
                for listed, row in zip(names, rows, strict=True)
            ],
            [
                listed.name_zh or (listed.name if row is None else own.tags_zh[row])
                for listed, row in zip(names, rows, strict=True)
            ],
            np.array(
                [
                    listed.threshold
                    if listed.threshold is not None
                    else default_threshold
                    if row is None
                    else own.thresholds[row]
                    for listed, row in zip(names, rows, strict=True)
                ],
                np.float32,
            ),
        ),
        np.concatenate([next(embedded) if row is None else own_rows[row] for row in rows]),
        len(names) - len(unknown),
    )


def write_labels(model: RAM, labels: Labels, folder: Path) -> None:
    """Write a checkpoint that has these labels and the model's other weights, and its tag lists.

    Args:
        model: is changed to have them.
        labels: from `choose_labels`.
        folder: to make; it appears as a whole, or not at all.

    Raises:
        VocabularyError: the folder is there and not empty, or cannot be written.
    """
    vocabulary = labels.vocabulary
    model.variant = replace(model.variant, num_tags=len(vocabulary.tags))
    model.label_embed = torch.nn.Parameter(torch.from_numpy(labels.embeddings))
    lists = {
        ENGLISH: vocabulary.tags,
        CHINESE: vocabulary.tags_zh,
        THRESHOLDS: (f"{threshold:.6g}" for threshold in vocabulary.thresholds.tolist()),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vocabulary-", dir=folder.parent) as staging:
            whole = Path(staging) / "whole"
            whole.mkdir()
            save_model(model, whole / CHECKPOINT)
            for name, lines in lists.items():
                text = "".join(f"{line}\n" for line in lines)
                (whole / name).write_text(text, encoding="utf-8")
            whole.replace(folder)  # onto nothing, or an empty folder
    except OSError as error:
        raise VocabularyError(f"{folder}: cannot be written ({error.strerror})") from error


def _find(names: Sequence[ListedName], known: KnownLabels) -> list[int | None]:
    """Return the model's own tag of each name, None where there is none."""
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
    raise_problems(problems)
    return rows


def _embed(unknown: Sequence[ListedName], model: RAM, embed: Embed | None) -> np.ndarray:
    """Return (names, descriptions, label_width): a name's embedding stands for all descriptions."""
    if embed is None:
        raise_problems(
            [f"{listed.place}: the checkpoint does not know '{listed.name}'" for listed in unknown]
            + ["other names need the text encoder of the checkpoint's labels: TEXT_ENCODER=DIR"]
        )
    variant = model.variant
    try:
        embeddings = np.asarray(embed([listed.name for listed in unknown]), np.float32)
    except Exception as error:  # the function may be anybody's
        raise VocabularyError(
            f"the text encoder did not return embeddings ({_in_one_line(error)})"
        ) from error
    if embeddings.shape != (len(unknown), variant.label_width):
        raise VocabularyError(
            f"the text encoder makes embeddings of shape {embeddings.shape} for {len(unknown)} "
            f"names, but the checkpoint's labels are {variant.label_width} wide"
        )
    if not np.isfinite(embeddings).all():
        raise VocabularyError("the text encoder's embeddings are not all finite numbers")
    return np.repeat(embeddings[:, None], variant.descriptions, axis=1)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
