"""Proof that the exported graphs compute what the PyTorch model computes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openvino
import torch

from .model import RAM
from .served import ImageError, Vocabulary, preprocess, select

TOLERANCE = 1e-3  # largest difference of a logit
BATCH_SIZES = (1, 2, 3)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

Tagger = Callable[[np.ndarray], np.ndarray]


class ParityError(ValueError):
    """The graphs differ from the model by more than the tolerance, or can't be compared."""


@dataclass(frozen=True)
class Parity:
    """How far two taggers agree.

    Attributes:
        images: how many images were compared.
        largest_logit_difference: over all images and tags.
        equal_tags: share of the images' tags (chosen by either) that both chose.
    """

    images: int
    largest_logit_difference: float
    equal_tags: float

    def require(self, tolerance: float = TOLERANCE) -> None:
        """Check the logits.

        Raises:
            ParityError: they differ by more than `tolerance`, or are not finite.
        """
        if not self.largest_logit_difference <= tolerance:  # so that NaN fails too
            raise ParityError(
                f"the graphs differ from PyTorch: largest logit difference "
                f"{self.largest_logit_difference:.2g}, the limit is {tolerance:g}"
            )

    def as_dict(self) -> dict:
        """Return the figures by name, for the manifest."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"largest logit difference {self.largest_logit_difference:.2g}, "
            f"{self.equal_tags:.2%} equal tags on {self.images} images"
        )


def compare(
    reference: Tagger, candidate: Tagger, batches: Iterable[np.ndarray], vocabulary: Vocabulary
) -> Parity:
    """Run two taggers on batches of pixels, (B, size, size, 3) uint8, and compare their logits."""
    images, difference, common, either = 0, 0.0, 0, 0
    for pixels in batches:
        expected, actual = reference(pixels), candidate(pixels)
        images += len(pixels)
        # Not max(): a logit that is no number must stay one, and fail.
        difference = float(np.maximum(difference, np.abs(expected - actual).max()))
        for rows in zip(expected, actual, strict=True):
            chosen, rechosen = (set(select(row, vocabulary)[0].tolist()) for row in rows)
            common += len(chosen & rechosen)
            either += len(chosen | rechosen)
    return Parity(images, difference, common / either if either else 1.0)


def torch_tagger(model: RAM) -> Tagger:
    """Return the PyTorch model as a function of pixels."""

    def tag(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels)).numpy()

    return tag


def onnx_tagger(encoder_path: Path, head_path: Path) -> Tagger:
    """Return both graphs, run by OpenVINO in float32 as the CPU profile does, as one function."""
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    encoder, head = (
        openvino.Core().compile_model(path, "CPU", precision) for path in (encoder_path, head_path)
    )

    def tag(pixels: np.ndarray) -> np.ndarray:
        image_embeds = encoder(pixels)["image_embeds"]
        # A copy: the engine writes the next answer into the same buffer.
        return head(image_embeds)["logits"].copy()

    return tag


def check_batches(folder: Path, image_size: int) -> Iterator[np.ndarray]:
    """Yield pixels of real images and random ones by turns, in batches of `BATCH_SIZES`.

    Raises:
        ParityError: the folder holds no images.
    """
    image_files = sorted(path for path in folder.glob("*") if path.suffix in IMAGE_SUFFIXES)
    if not image_files:
        raise ParityError(
            f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)}) to compare with"
        )
    random = np.random.default_rng(0)
    for first, size in zip(np.cumsum((0, *BATCH_SIZES)), BATCH_SIZES, strict=False):
        batch = []
        for index in range(first, first + size):
            if index % 2:
                batch.append(random.integers(0, 256, (image_size, image_size, 3), np.uint8))
            else:
                batch.append(_pixels(image_files[index // 2 % len(image_files)], image_size))
        yield np.stack(batch)


def _pixels(path: Path, image_size: int) -> np.ndarray:
    try:
        return preprocess(path.read_bytes(), image_size)
    except (ImageError, OSError) as error:
        raise ParityError(f"{path}: can't be used to compare ({error})") from error
