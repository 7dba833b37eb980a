"""Write a RAM checkpoint of a published shape whose weights are noise, for trying sizes.

`--vocabulary` writes tag lists for it too, with names that are numbers.
"""

import argparse
from pathlib import Path

from ram_triton.model.checkpoint import save_model
from ram_triton.model.noise import published_variant, random_model
from ram_triton.model.variant import BACKBONES
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH


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
        arguments.vocabulary.mkdir(parents=True, exist_ok=True)
        for name in (ENGLISH, CHINESE):
            lines = (f"{name} {index}\n" for index in range(variant.num_tags))
            (arguments.vocabulary / name).write_text("".join(lines))
    print(f"{arguments.output}: {variant}, weights are noise")


if __name__ == "__main__":
    main()
