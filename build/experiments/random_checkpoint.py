"""Write a RAM checkpoint of a published shape whose weights are noise, for trying sizes.

`--vocabulary` writes tag lists for it too, with names that are numbers.
"""

import argparse
import sys
from pathlib import Path

from ram_triton.arguments import positive
from ram_triton.cli import run_module
from ram_triton.model.checkpoint import random_model, save_model
from ram_triton.model.variant import BACKBONES, published_variant
from ram_triton.vocabulary.tag_lists import write_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--vocabulary", type=Path, metavar="DIR", help="folder for its tag lists")
    add("--backbone", choices=BACKBONES, default="swin_l", help="default: %(default)s")
    add("--image-size", type=int, choices=(224, 384), default=384, help="default: %(default)s")
    add("--tags", type=positive, default=4585, help="number of tags (default: %(default)s)")
    add("output", type=Path, help=".pth or .safetensors file to write")


def run(arguments: argparse.Namespace) -> None:
    """Write the checkpoint, and the tag lists."""
    variant = published_variant(arguments.backbone, arguments.image_size, arguments.tags)
    save_model(random_model(variant), arguments.output)
    if arguments.vocabulary:
        numbers = range(variant.num_tags)
        tags, tags_zh = ([f"{word} {number}" for number in numbers] for word in ("tag", "标签"))
        write_names(tags, tags_zh, arguments.vocabulary)
    print(f"{arguments.output}: {variant}, weights are noise")


if __name__ == "__main__":
    sys.exit(run_module("experiments.random_checkpoint", sys.modules[__name__]))
