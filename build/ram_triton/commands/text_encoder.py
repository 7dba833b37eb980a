"""Add the text encoder of a model's labels to a repository, so that it takes any names."""

import argparse
from pathlib import Path

from ram_triton.arguments import add_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="folder of a CLIP (ViT-B/16 for published RAM) in transformers' or open_clip's "
        "format, or of a sentence-BERT; 'demo' is that of the demo's labels",
    )
    add_repository(parser, "model repository with the model")
    add(
        "--templates",
        type=Path,
        metavar="FILE",
        help="sentences with {name} and, for its article, {a}, one per line (default: RAM's)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Load, export and install it."""
    from ram_triton.text_encoder.chosen import choose_text_encoder
    from ram_triton.text_encoder.install import install_text_encoder

    encoder, templates = choose_text_encoder(arguments.checkpoint, arguments.templates)
    print(f"{arguments.checkpoint}: {encoder.kind}, {encoder.tower.width} wide")
    name = Path(arguments.checkpoint).name
    install_text_encoder(encoder, templates, arguments.repository, name)
