"""A model's scores on a split, the figures that follow, and the thresholds that suit them best."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
)
from torch import Tensor

from ram_triton.errors import ConfigError
from ram_triton.files import require_writable_file, require_writable_folder, write_atomically
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.training.config import read_config
from ram_triton.training.data import Images
from ram_triton.training.manifest import Sample, read_samples
from ram_triton.training.optimise import choose_device
from ram_triton.vocabulary.tag_lists import (
    DEFAULT_THRESHOLD,
    THRESHOLDS,
    read_vocabulary,
    write_names,
    write_thresholds,
)

BATCH = 64
DECIMALS = 4  # of the written thresholds
FEWEST = 5  # images that a threshold is chosen on
SMALLEST_THRESHOLD, LARGEST_THRESHOLD = 0.02, 0.98  # beyond, a tag would show always or never

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Detection:
    """Precision, recall and F1, each 0 to 1; 0 if nothing could be counted."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Report:
    """How well a model does on a split.

    Attributes:
        split: its name.
        images: how many it has.
        tags: how many tags some image of it has; all means are over these.
        chance: mAP of random scores: the mean share of images that have a tag.
        mean_average_precision: see the function of that name.
        micro, macro: precision, recall and F1 at the thresholds; see `detect`.
    """

    split: str
    images: int
    tags: int
    chance: float
    mean_average_precision: float
    micro: Detection
    macro: Detection


def score(
    tag: Callable[[Tensor], Tensor],
    num_tags: int,
    samples: list[Sample],
    images: Images,
    device: torch.device | str = "cpu",
) -> tuple[Bools, NDArray[np.float32]]:
    """Tag the samples' images, shown as they are.

    Args:
        tag: from pixels, uint8 (batch, size, size, 3), to logits, (batch, num_tags).
        num_tags: of the vocabulary.
        samples: the images and their right tags.
        images: loads them.
        device: where `tag` computes.

    Returns:
        Right tags, bool (samples, tags); and scores, float32 of the same shape, 0 to 1.
    """
    targets = np.zeros((len(samples), num_tags), bool)
    for row, sample in enumerate(samples):
        targets[row, list(sample.tags)] = True
    scores = np.zeros(targets.shape, np.float32)
    with torch.inference_mode():
        for first in range(0, len(samples), BATCH):
            chosen = [sample.image for sample in samples[first : first + BATCH]]
            logits = tag(images.load_flat(chosen).to(device))
            scores[first : first + BATCH] = logits.float().sigmoid().cpu().numpy()
    return targets, scores


def mean_average_precision(targets: Bools, scores: Floats) -> float:
    """Return the mean of the average precisions of all tags that some image has; else NaN.

    A tag's average precision is scikit-learn's: without interpolation, and images of equal score
    count together.

    Args:
        targets: bool (images, tags).
        scores: floating (images, tags).
    """
    present = targets.any(axis=0)
    if not present.any():
        return float("nan")
    return float(average_precision_score(targets[:, present], scores[:, present], average="macro"))


def detect(targets: Bools, shown: Bools) -> dict[str, Detection]:
    """Compare right tags with shown ones.

    Args:
        targets: bool (images, tags).
        shown: bool, of the same shape.

    Returns:
        "micro", over all pairs of image and tag; and "macro", the mean of the tags' own figures,
        over the tags that some image has.
    """
    present = targets.any(axis=0)
    return {
        "micro": _detection(targets, shown, "micro"),
        "macro": _detection(targets[:, present], shown[:, present], "macro"),
    }


def best_thresholds(targets: Bools, scores: Floats, fewest: int = FEWEST) -> NDArray[np.float32]:
    """Choose for each tag the threshold under which its F1 is best.

    A threshold that suits few images need not suit others: if one of them scores low, everything
    else would be shown too. Tags of fewer images share the threshold of best F1 over all tags
    (micro).

    A tag is shown if its score exceeds its threshold. Thresholds lie halfway between the scores
    that they part. Of equally good ones the highest is taken: it shows the fewest wrong tags.

    Args:
        targets: bool (images, tags).
        scores: floating (images, tags), 0 to 1.
        fewest: images that a threshold of its own needs, at least 1.

    Returns:
        float32 (tags); `DEFAULT_THRESHOLD` if no image has any tag.
    """
    if not targets.any():
        return np.full(targets.shape[1], DEFAULT_THRESHOLD, np.float32)
    shared = _best_threshold(targets.ravel(), scores.ravel())
    thresholds = np.full(targets.shape[1], shared, np.float32)
    for tag in np.flatnonzero(targets.sum(axis=0) >= fewest):
        thresholds[tag] = _best_threshold(targets[:, tag], scores[:, tag])
    return np.clip(thresholds, SMALLEST_THRESHOLD, LARGEST_THRESHOLD)


def _detection(targets: Bools, shown: Bools, average: str) -> Detection:
    if not targets.size:
        return Detection(0.0, 0.0, 0.0)
    # scikit-learn takes a single column for a problem of two classes, of which 1 is the tag.
    labels = [1] if targets.shape[1] == 1 else None
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, shown, labels=labels, average=average, zero_division=0
    )
    return Detection(float(precision), float(recall), float(f1))


def _best_threshold(targets: Bools, scores: Floats) -> float:
    precision, recall, values = precision_recall_curve(targets, scores)
    precision, recall = precision[:-1], recall[:-1]  # without the curve's end, where nothing shows
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.flatnonzero(f1 == f1.max())[-1])  # values ascend
    below = values[best - 1] if best else 0.0
    return float(values[best] + below) / 2


def choose_thresholds(
    model: RAM, samples: list[Sample], images: Images, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Return the thresholds of best F1 on samples, float32 (tags); see `best_thresholds`.

    They are rounded as they are written: what is measured with them is what is served.
    """
    best = best_thresholds(*score(model, model.variant.num_tags, samples, images, device))
    return np.round(best.astype(np.float64), DECIMALS).astype(np.float32)


def evaluate(
    split: str,
    model: RAM,
    samples: list[Sample],
    images: Images,
    thresholds: Floats,
    device: torch.device | str = "cpu",
) -> Report:
    """Measure a model on samples.

    Args:
        split: the samples' name in the report.
        model: the model.
        samples: the images and their right tags.
        images: loads them.
        thresholds: a tag is shown if its score exceeds its own, float (tags).
        device: where the model is.
    """
    targets, scores = score(model, model.variant.num_tags, samples, images, device)
    present = targets.any(axis=0)
    return Report(
        split=split,
        images=len(samples),
        tags=int(present.sum()),
        chance=float(targets[:, present].mean()) if present.any() else 0.0,
        mean_average_precision=mean_average_precision(targets, scores),
        **detect(targets, scores > thresholds),
    )


def table(reports: list[Report]) -> Table:
    """Lay the figures out for a terminal."""
    result = Table(
        "split", "images", "tags", "chance", "mAP", "micro P / R / F1", "macro P / R / F1"
    )
    for report in reports:
        result.add_row(
            report.split,
            f"{report.images:,}",
            str(report.tags),
            f"{report.chance:.3f}",
            f"{report.mean_average_precision:.3f}",
            *(
                f"{d.precision:.3f} / {d.recall:.3f} / {d.f1:.3f}"
                for d in (report.micro, report.macro)
            ),
        )
    return result


def evaluate_run(
    config_path: Path,
    checkpoint: Path | None = None,
    splits: Sequence[str] = (),
    thresholds: Path | None = None,
    json_path: Path | None = None,
    threads: int = 0,
) -> list[Report]:
    """Choose a trained model's thresholds on the validation split, and measure it with them.

    Args:
        config_path: what the training was given.
        checkpoint: the model; None: what training wrote.
        splits: what to measure on; none: all that were not trained on, in the data's order.
        thresholds: folder for the list of thresholds; None: the training's output, which gets the
            lists of names too, so that `make model` takes all from one folder.
        json_path: file for the figures.
        threads: on a CPU; 0 is one per core.

    Raises:
        ConfigError, VocabularyError, ManifestError, CheckpointError, FileError: something cannot
            be used or written; nothing was written.
    """
    config = read_config(config_path)
    if threads:
        torch.set_num_threads(threads)
    model = load_model(checkpoint or config.trained_model)
    folder = thresholds or config.output
    require_writable_folder(folder)
    if json_path:
        require_writable_file(json_path)
    vocabulary = read_vocabulary(config.data.vocabulary, model.variant.num_tags)
    samples = read_samples(config.data, vocabulary.tags, vocabulary.tags_zh)
    device = choose_device(config.device)
    model = model.to(device)
    images = Images(config.data.images, model.variant.image_size)

    def of_split(name: str) -> list[Sample]:
        chosen = [sample for sample in samples if sample.split == name]
        if not chosen:
            raise ConfigError(f"{config_path}: the split '{name}' has no images")
        return chosen

    validation = config.data.validation_split
    chosen = choose_thresholds(model, of_split(validation), images, device)
    write_thresholds(chosen.tolist(), folder)
    if thresholds is None:  # a folder of the user's has the lists that it should have
        write_names(vocabulary.tags, vocabulary.tags_zh, folder)
    print(f"{folder / THRESHOLDS}: chosen on the split '{validation}'")
    trained = config.data.training_split
    others = dict.fromkeys(one.split for one in samples if one.split and one.split != trained)
    reports = [
        evaluate(name, model, of_split(name), images, chosen, device) for name in splits or others
    ]
    if json_path:
        write_atomically(json_path, json.dumps(list(map(asdict, reports)), indent=2) + "\n")
    return reports
