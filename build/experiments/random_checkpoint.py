"""Write a RAM checkpoint of a published shape whose weights are noise, for trying sizes.

`--vocabulary` writes tag lists for it too, with names that are numbers.
"""

import argparse
from pathlib import Path

from ram_triton.model.checkpoint import save_model
from ram_triton.model.noise import published_variant, random_model
from ram_triton.model.variant import BACKBONES
from ram_triton.vocabulary.tag_lists import write_names


def main() -> None:
    """Read the arguments and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=Path, metavar="DIR", help="folder for its tag lists")
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_l")
    parser.add_argument("--image-size", type=int, choices=(224, 384), default=384)
    parser.add_argument("--tags", type=int, default=4585, help="number of tags (%(default)s)")
    parser.add_argument("output", type=Path, help=".pth or .safetensors file to write")
    arguments = parser.parse_args()
    variant = published_variant(arguments.backbone, arguments.image_size, arguments.tags)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_model(random_model(variant), arguments.output)
    if arguments.vocabulary:
        numbers = range(variant.num_tags)
        tags, tags_zh = ([f"{word} {number}" for number in numbers] for word in ("tag", "标签"))
        write_names(tags, tags_zh, arguments.vocabulary)
    print(f"{arguments.output}: {variant}, weights are noise")


if __name__ == "__main__":
    main()
