"""Measure by names alone how well the demo's model recognises things that are not its tags.

The names are those of emoji concepts without a tag, embedded as the tags were. Each drawing of the
test vendor shows one of them; a name's scores over all drawings are ranked. Needs the data set of
`make runs/demo/features.npy`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from demo.dataset import Image, load_dataset
from demo.splits import TEST_SEEN, TEST_UNSEEN
from demo.vocabulary import read_tags
from numpy.typing import NDArray
from ram_triton.cli import run_module
from ram_triton.errors import PackageError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.training.data import Images
from ram_triton.training.evaluate import mean_average_precision

from experiments.heat_maps import DATA, WEIGHTS

SPLITS = {
    TEST_UNSEEN: "concepts that training never showed",
    TEST_SEEN: "concepts that it showed under other tags",
}
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help="(default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print a table."""
    try:
        from demo.prepare import embed_names
    except ImportError as error:
        raise PackageError(
            f"the package {error.name} is missing: .venv/bin/pip install -e '.[train]'"
        ) from error
    model = load_model(WEIGHTS)
    _, manifest = load_dataset(arguments.data)
    images = Images(arguments.data / "images.npy", model.variant.image_size)
    print("| split | what | drawings | names | mAP | chance | best name right |")
    print("|---|---|---|---|---|---|---|")
    for split, what in SPLITS.items():
        chosen = without_own_tag(manifest, split)
        names = sorted({image.concept for image in chosen})
        scores = score(model, images, chosen, embed_names(names))
        targets = np.array([[image.concept == name for name in names] for image in chosen])
        quality = mean_average_precision(targets, scores)
        best = np.mean(targets[np.arange(len(chosen)), scores.argmax(axis=1)])
        print(
            f"| `{split}` | {what} | {len(chosen):,} | {len(names)} | {quality:.3f} | "
            f"{chance(targets):.3f} | {best:.3f} |"
        )


def without_own_tag(manifest: Sequence[Image], split: str) -> list[Image]:
    """Return a split's images whose concept's name is not a tag."""
    tags = {tag.name.casefold() for tag in read_tags()}
    return [i for i in manifest if i.split == split and i.concept.casefold() not in tags]


def score(
    model: RAM, images: Images, chosen: Sequence[Image], embeds: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the logits of embedded names, (names, width), on images: (images, names)."""
    labels = torch.from_numpy(embeds)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(chosen), BATCH):
            pixels = images.load_flat([image.image for image in chosen[start : start + BATCH]])
            rows.append(model.head(model.encoder(pixels), labels))
    return torch.cat(rows).numpy()


def chance(targets: NDArray[np.bool_]) -> float:
    """Return the expected mAP of random scores.

    For k right ones of n, each is right with probability k / n, and each other one above it with
    (k - 1) / (n - 1); the precision at each place follows.

    Args:
        targets: bool (images, names); each name is right for some image.
    """
    number, right = len(targets), targets.sum(axis=0)
    reciprocals = (1 / np.arange(1, number + 1)).mean()
    return float((reciprocals + (right - 1) / (number - 1) * (1 - reciprocals)).mean())


if __name__ == "__main__":
    sys.exit(run_module("experiments.open_set", sys.modules[__name__]))
