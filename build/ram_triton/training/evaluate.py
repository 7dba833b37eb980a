"""A model's scores on a split, what they are worth, and the thresholds that follow from them."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from ram_triton.errors import ConfigError
from ram_triton.files import require_writable_file, require_writable_folder, write_atomically
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.training.config import Config, read_config
from ram_triton.training.data import Images
from ram_triton.training.manifest import Sample, read_samples
from ram_triton.training.metrics import Detection, best_thresholds, detect, mean_average_precision
from ram_triton.training.optimise import choose_device
from ram_triton.training.run_inputs import read_tags
from ram_triton.training.state import MODEL
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH, THRESHOLDS

BATCH = 64
DECIMALS = 4  # of the written thresholds


@dataclass(frozen=True)
class Report:
    """What a model is worth on a split.

    Attributes:
        split: its name.
        images: how many it has.
        tags: how many tags some image of it has; all means are over these.
        chance: mAP of scores that know nothing: the mean share of images that have a tag.
        mean_average_precision: see `training.metrics`.
        micro, macro: precision, recall and F1 at the thresholds.
    """

    split: str
    images: int
    tags: int
    chance: float
    mean_average_precision: float
    micro: Detection
    macro: Detection

    def as_dict(self) -> dict:
        """Return the figures by name."""
        return asdict(self)


def score(
    tag: Callable[[Tensor], Tensor],
    num_tags: int,
    samples: list[Sample],
    images: Images,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Tag the samples' images, shown as they are.

    Args:
        tag: of pixels, uint8 (batch, size, size, 3), makes logits, (batch, num_tags).
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


def choose_thresholds(
    model: RAM, samples: list[Sample], images: Images, device: torch.device | str = "cpu"
) -> np.ndarray:
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
    thresholds: np.ndarray,
    device: torch.device | str = "cpu",
) -> Report:
    """Measure a model on samples.

    Args:
        split: what to call them.
        model: the model.
        samples: the images and their right tags.
        images: loads them.
        thresholds: a tag is shown where its score exceeds its own, float (tags).
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


def write_thresholds(thresholds: np.ndarray, path: Path) -> None:
    """Write a list of thresholds as RAM publishes it: one a line, in the vocabulary's order."""
    _write_lines([f"{threshold:.{DECIMALS}f}" for threshold in thresholds], path)


def write_tags(tags: Sequence[str], tags_zh: Sequence[str], folder: Path) -> None:
    """Write both lists of names beside the thresholds: `make model` takes all from one folder."""
    _write_lines(tags, folder / ENGLISH)
    _write_lines(tags_zh, folder / CHINESE)


def _write_lines(lines: Sequence[str], path: Path) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines))


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


def evaluate_run(arguments: argparse.Namespace) -> list[Report]:
    """Evaluate each split that was asked for, and write what is to be written."""
    config = read_config(arguments.config)
    if arguments.threads < 0:
        raise ConfigError(f"--threads must be at least 0, not {arguments.threads}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint or config.output / MODEL)
    folder = arguments.thresholds or config.output
    require_writable_folder(folder)
    if arguments.json:
        require_writable_file(arguments.json)
    tags, tags_zh = read_tags(config.data.vocabulary)
    if len(tags) != model.variant.num_tags:
        raise ConfigError(
            f"{config.data.vocabulary}: has {len(tags)} tags, the model {model.variant.num_tags}"
        )
    samples = read_samples(config.data, tags, tags_zh)
    device = choose_device(config.device)
    model = model.to(device)
    images = Images(config.data.images, model.variant.image_size)

    def of_split(name: str) -> list:
        chosen = [sample for sample in samples if sample.split == name]
        if not chosen:
            raise ConfigError(f"{arguments.config}: no image is of the split '{name}'")
        return chosen

    thresholds = choose_thresholds(model, of_split(config.data.validation_split), images, device)
    write_thresholds(thresholds, folder / THRESHOLDS)
    if arguments.thresholds is None:  # a folder of the user's has the lists that it should have
        write_tags(tags, tags_zh, folder)
    print(f"{folder / THRESHOLDS}: chosen on the split '{config.data.validation_split}'")
    names = arguments.split or splits_to_measure(config, samples)
    reports = [evaluate(name, model, of_split(name), images, thresholds, device) for name in names]
    if arguments.json:
        text = json.dumps([report.as_dict() for report in reports], indent=2) + "\n"
        write_atomically(arguments.json, text)
    return reports


def splits_to_measure(config: Config, samples: list) -> list[str]:
    """All splits that were not trained on, in the data's order."""
    names = dict.fromkeys(sample.split for sample in samples if sample.split)
    return [name for name in names if name != config.data.training_split]
