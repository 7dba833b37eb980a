"""Batches of training pictures, each a function of (seed, epoch, batch) and nothing else."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ram_triton.server_code import (
    TURNS,
    open_image,
    preprocess,
    read_orientation,
    scale_transparent_colour,
)
from ram_triton.training.augment import choose_objects, compose
from ram_triton.training.config import Augmentation
from ram_triton.training.manifest import LIMITS, Sample, map_array

JOINT = " and "  # between the captions of images that share a picture

Pixels = NDArray[np.uint8]


@dataclass
class Batch:
    """Pictures and what the losses need of them.

    Attributes:
        pixels: RGB, uint8 (batch, size, size, 3).
        targets: 1 if the tag is right, float32 (batch, tags).
        features: of a teacher, float32 (batch, image_width), NaN if there is none; or None.
        captions: one per picture, None if there is none; or None.
    """

    pixels: Tensor
    targets: Tensor
    features: Tensor | None
    captions: list[str | None] | None


class Images:
    """Images by their path or index, squashed to squares as RAM does it.

    Args:
        array: .npy of images, uint8 (images, height, width, 3 or 4); None if all are files.
        size: side length in pixels.
    """

    def __init__(self, array: Path | None, size: int) -> None:
        self.array: Pixels | None = None if array is None else map_array(array)
        self.size = size

    def load(self, images: Sequence[Path | int]) -> Tensor:
        """Load images with their transparency: RGBA, uint8 (images, height, width, 4).

        Those of an array keep their size.

        Raises:
            OSError: a file cannot be read.
            ImageError: a file is not an image that the server takes.
        """
        return torch.from_numpy(np.stack([self._load(image) for image in images]))

    def load_flat(self, images: Sequence[Path | int]) -> Tensor:
        """Load images as a model sees them when it is served: on white, uint8 (images, S, S, 3).

        Errors as for `load`.
        """
        return torch.from_numpy(np.stack([self._load_flat(image) for image in images]))

    def _load(self, image: Path | int) -> Pixels:
        if isinstance(image, Path):
            return _read_layer(image, self.size)
        assert self.array is not None, "`read_samples` refuses indices without an array"
        pixels: Pixels = self.array[image]
        return _opaque(pixels) if pixels.shape[2] == 3 else np.array(pixels)

    def _load_flat(self, image: Path | int) -> Pixels:
        if isinstance(image, Path):
            return preprocess(image.read_bytes(), self.size, LIMITS)
        picture = Image.fromarray(self._load(image), "RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
        return np.array(picture.resize((self.size,) * 2, Image.Resampling.BILINEAR))


@dataclass(eq=False)
class TrainingBatches(Dataset[Batch]):
    """The batches of one epoch; item i is batch i."""

    samples: list[Sample]
    images: Images
    num_tags: int
    features: NDArray[Any] | None
    augmentation: Augmentation
    batch_size: int
    seed: int
    epoch: int

    def __len__(self) -> int:
        """Batches per epoch; images that do not fill one are left for another epoch's order."""
        return max(1, len(self.samples) // self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        """Make batch `number` of this epoch."""
        first = number * self.batch_size
        order = make_generator(self.seed, self.epoch)
        shown = torch.randperm(len(self.samples), generator=order)[first : first + self.batch_size]
        chance = make_generator(self.seed, self.epoch, number)
        pictures = len(shown)
        objects = choose_objects(self.augmentation, pictures, chance)
        extra = int(objects.sum()) - pictures
        others = torch.randint(len(self.samples), (extra,), generator=chance)
        picture_of = torch.cat(
            [torch.arange(pictures), torch.arange(pictures).repeat_interleave(objects - 1)]
        )
        chosen = [self.samples[index] for index in torch.cat([shown, others]).tolist()]
        pixels = compose(
            self.images.load([sample.image for sample in chosen]),
            picture_of,
            pictures,
            self.images.size,
            self.augmentation,
            chance,
        )
        targets = torch.zeros(pictures, self.num_tags)
        for sample, picture in zip(chosen, picture_of.tolist(), strict=True):
            targets[picture, list(sample.tags)] = 1
        return Batch(
            pixels,
            targets,
            self._features(chosen, picture_of, objects),
            _captions(chosen, picture_of, pictures),
        )

    def _features(self, chosen: list[Sample], picture_of: Tensor, objects: Tensor) -> Tensor | None:
        """Return the mean feature of each picture's images: about what a teacher would see."""
        if self.features is None:
            return None
        rows = torch.from_numpy(self.features[[sample.line for sample in chosen]]).float()
        total = torch.zeros(len(objects), rows.shape[1]).index_add_(0, picture_of, rows)
        return total / objects[:, None]


def _captions(chosen: list[Sample], picture_of: Tensor, pictures: int) -> list[str | None] | None:
    """Return one caption per picture, if all its images have one; None if no picture has."""
    parts: list[list[str | None]] = [[] for _ in range(pictures)]
    for sample, picture in zip(chosen, picture_of.tolist(), strict=True):
        parts[picture].append(sample.caption)
    captions = [_join(part) for part in parts]
    return None if all(caption is None for caption in captions) else captions


def _join(captions: list[str | None]) -> str | None:
    texts = [caption for caption in captions if caption is not None]
    return JOINT.join(texts) if len(texts) == len(captions) else None


def make_generator(*numbers: int) -> torch.Generator:
    """Return a random generator that depends on the numbers alone."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed & (2**63 - 1))


def load_batches(batches: TrainingBatches, first: int, workers: int) -> DataLoader[Batch]:
    """Return the epoch's batches from number `first` on, prepared by other processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(_: int) -> None:
    """Leave Ctrl-C to the training process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_layer(path: Path, size: int) -> Pixels:
    """Read an image with its transparency, uint8 RGBA (size, size, 4)."""
    data = path.read_bytes()
    image = open_image(data, LIMITS)
    # Of 16-bit greys the server makes the one transparent grey white.
    if not image.has_transparency_data or image.mode.startswith("I"):
        return _opaque(preprocess(data, size, LIMITS))
    scale_transparent_colour(image)
    square = image.convert("RGBA").resize((size, size), Image.Resampling.BILINEAR)
    turn = TURNS.get(read_orientation(image) or 0)
    return np.array(square if turn is None else square.transpose(turn))


def _opaque(pixels: Pixels) -> Pixels:
    """Return RGB pixels as RGBA."""
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([pixels, alpha], axis=2)
