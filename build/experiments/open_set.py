"""Measure how well the demo's model recognises what it has no tag for, by names alone.

The names are those of emoji concepts that are no tags, embedded as the tags were. Each drawing of
the test vendor shows one of them: the scores of a name over all drawings are ranked. Needs what
`build/prepare_demo.py` made, and its packages.
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
from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.training.data import Images
from ram_triton.training.evaluate import mean_average_precision

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {
    TEST_UNSEEN: "concepts that training never showed",
    TEST_SEEN: "concepts that it showed under other tags",
}
# Files that make makes.
PACKAGES = ".venv/.installed-training"
DATA = "runs/demo/features.npy"
BATCH = 64
SHUFFLES = 20


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure and print a table, or say what is missing; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        from demo.text_encoder import embed_names

        model = load_model(arguments.checkpoint)
        _, manifest = load_dataset(arguments.data)
    except ImportError as error:
        return fail(f"needs the package {error.name}: 'make {PACKAGES}' installs it")
    except FileNotFoundError:
        return fail(f"no data set in {arguments.data}: 'make {DATA}' makes the demo's")
    except CheckpointError as error:
        return fail(str(error))
    images = Images(arguments.data / "images.npy", model.variant.image_size)
    print("| split | what | drawings | names | mAP | of shuffled scores | best name right |")
    print("|---|---|---|---|---|---|---|")
    for split, what in SPLITS.items():
        chosen = without_tags_of_their_own(manifest, split)
        names = sorted({image.concept for image in chosen})
        scores = score(model, images, chosen, embed_names(names))
        targets = np.array([[image.concept == name for name in names] for image in chosen])
        found = mean_average_precision(targets, scores)
        best = np.mean(targets[np.arange(len(chosen)), scores.argmax(axis=1)])
        print(
            f"| `{split}` | {what} | {len(chosen):,} | {len(names)} | {found:.3f} | "
            f"{chance(targets, scores):.3f} | {best:.3f} |"
        )
    return 0


def without_tags_of_their_own(manifest: Sequence[Image], split: str) -> list[Image]:
    """Return a split's images whose concept's name is no tag."""
    tags = {tag.name.casefold() for tag in read_tags()}
    return [i for i in manifest if i.split == split and i.concept.casefold() not in tags]


def fail(message: str) -> int:
    """Say in one line what is missing; returns the exit status."""
    print(f"measure open set: {message}", file=sys.stderr)
    return 1


def score(model: RAM, images: Images, chosen: Sequence[Image], embeds: np.ndarray) -> np.ndarray:
    """Return the logits of embedded names, (names, width), on images: (images, names) float32."""
    labels = torch.from_numpy(embeds)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(chosen), BATCH):
            pixels = images.load_flat([image.image for image in chosen[start : start + BATCH]])
            rows.append(model.head(model.encoder(pixels), labels))
    return torch.cat(rows).numpy()


def chance(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the mAP of the same scores in random order, on average."""
    random = np.random.default_rng(0)
    return float(
        np.mean(
            [
                mean_average_precision(targets, random.permuted(scores, axis=0))
                for _ in range(SHUFFLES)
            ]
        )
    )


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        default=ROOT / "build" / "demo" / "weights" / "ram_demo.safetensors",
        help="default: the demo's",
    )
    add(
        "--data",
        type=Path,
        default=ROOT / "runs" / "demo" / "data",
        metavar="DIR",
        help="default: %(default)s",
    )
    return parser.parse_args(command_line)


if __name__ == "__main__":
    sys.exit(main())
