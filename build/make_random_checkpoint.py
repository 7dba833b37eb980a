"""Write a RAM checkpoint of a published shape whose weights are noise, for trying sizes."""

import argparse
from pathlib import Path

from ram.checkpoint import save_model
from ram.random_weights import published_variant, random_model
from ram.variant import BACKBONES


def main() -> None:
    """Read the arguments and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_l")
    parser.add_argument("--image-size", type=int, choices=(224, 384), default=384)
    parser.add_argument("--tags", type=int, default=4585, help="number of tags (%(default)s)")
    parser.add_argument("output", type=Path, help=".pth or .safetensors file to write")
    arguments = parser.parse_args()
    variant = published_variant(arguments.backbone, arguments.image_size, arguments.tags)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_model(random_model(variant), arguments.output)
    print(f"{arguments.output}: {variant}, weights are noise")


if __name__ == "__main__":
    main()
