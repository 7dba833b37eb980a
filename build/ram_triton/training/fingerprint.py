"""What tells a training run from another: a checksum of all that decides its outcome."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from ram_triton.training.config import Config
from ram_triton.training.manifest import Sample


def fingerprint_of(
    config: Config,
    tags: list[str],
    training: list[Sample],
    labels: Tensor,
    features: np.ndarray | None,
) -> str:
    """Return a checksum of what decides the outcome, but for where it lies and what it runs on.

    Args:
        config: the run's.
        tags: the vocabulary's English names.
        training: the samples to learn from.
        labels: float32 (tags, label_width).
        features: see `Data.features`.
    """
    settings = asdict(config)
    for name in ("output", "data", "reports", "device", "threads"):
        del settings[name]
    for section, name, file in (
        ("model", "start", config.model.start),
        ("model", "swin", config.model.swin),
        ("text", "vocabulary", config.text.vocabulary and config.text.vocabulary / "vocab.txt"),
    ):
        settings[section][name] = _digest(file)
    data = config.data
    base = data.manifest.parent if data.manifest else data.folder.resolve()
    samples = [
        (
            one.image if isinstance(one.image, int) else os.path.relpath(one.image, base),
            one.tags,
            one.caption,
        )
        for one in training
    ]
    checksum = hashlib.sha256(json.dumps([settings, tags, samples], default=str).encode())
    checksum.update(labels.numpy().tobytes())
    if features is not None:
        checksum.update(features.tobytes())
    return checksum.hexdigest()


def _digest(file: Path | None) -> str | None:
    """Return a file's checksum; None where there is none: who reads it will say so."""
    if file is None or not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
