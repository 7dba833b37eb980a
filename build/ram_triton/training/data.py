"""Batches of training pictures, each a function of (seed, epoch, batch) and nothing else."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ram_triton.training.augment import choose_objects, compose
from ram_triton.training.config import Augmentation
from ram_triton.training.image_file import read_flat, read_layer
from ram_triton.training.manifest import Sample

JOINT = " and "  # between the captions of images that share a picture


@dataclass
class Batch:
    """Pictures and what the losses need of them.

    Attributes:
        pixels: RGB, uint8 (batch, size, size, 3).
        targets: 1 where the tag is right, float32 (batch, tags).
        features: of a teacher, float32 (batch, image_width), NaN where there is none; or None.
        captions: one a picture, None where there is none; or None.
    """

    pixels: Tensor
    targets: Tensor
    features: Tensor | None
    captions: list[str | None] | None


class Images:
    """Images by their path or index, RGBA and square."""

    def __init__(self, array: Path | None, size: int) -> None:
        """Map the array, if there is one; files are squashed to size × size, as RAM does."""
        self.array = None if array is None else np.load(array, mmap_mode="r")
        self.size = size

    def load(self, images: Sequence[Path | int]) -> Tensor:
        """Load images, uint8 (images, height, width, 4)."""
        return torch.from_numpy(np.stack([self._load(image) for image in images]))

    def load_flat(self, images: Sequence[Path | int]) -> Tensor:
        """Load images as they are shown to a trained model: on white, uint8 (images, S, S, 3)."""
        return torch.from_numpy(np.stack([self._load_flat(image) for image in images]))

    def _load_flat(self, image: Path | int) -> np.ndarray:
        if isinstance(image, Path):
            return read_flat(image, self.size)
        picture = Image.fromarray(self._load(image), "RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
        return np.array(picture.resize((self.size,) * 2, Image.Resampling.BILINEAR))

    def _load(self, image: Path | int) -> np.ndarray:
        if isinstance(image, Path):
            return read_layer(image, self.size)
        pixels = self.array[image]
        if pixels.shape[2] == 3:
            opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
            return np.concatenate([pixels, opaque], axis=2)
        return np.array(pixels)


class TrainingBatches(Dataset):
    """The batches of one epoch; item i is batch i."""

    def __init__(
        self,
        samples: list[Sample],
        images: Images,
        num_tags: int,
        features: np.ndarray | None,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        self.samples, self.images, self.num_tags = samples, images, num_tags
        self.features, self.augmentation = features, augmentation
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch

    def __len__(self) -> int:
        """Batches in an epoch; what fills none is left for another epoch's order."""
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
        """The mean of the features of a picture's images: what a teacher would about see."""
        if self.features is None:
            return None
        rows = torch.from_numpy(self.features[[sample.line for sample in chosen]]).float()
        total = torch.zeros(len(objects), rows.shape[1]).index_add_(0, picture_of, rows)
        return total / objects[:, None]


def _captions(chosen: list[Sample], picture_of: Tensor, pictures: int) -> list[str | None] | None:
    """One caption a picture, where all its images have one; None where no picture has."""
    parts: list[list[str | None]] = [[] for _ in range(pictures)]
    for sample, picture in zip(chosen, picture_of.tolist(), strict=True):
        parts[picture].append(sample.caption)
    captions = [None if None in part else JOINT.join(part) for part in parts]
    return None if all(caption is None for caption in captions) else captions


def make_generator(*numbers: int) -> torch.Generator:
    """Return a source of chance that depends on the numbers alone."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed & (2**63 - 1))


def load_batches(batches: TrainingBatches, first: int, workers: int) -> DataLoader:
    """Return the epoch's batches from number `first` on, made ahead by other processes."""
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
