"""Add the text encoder of a model's labels to a repository, so that it takes any names."""

import argparse
from pathlib import Path

from ram_triton.arguments import add_repository
from ram_triton.repository.repository import Repository
from ram_triton.vocabulary.embed import require_text_encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of a CLIP (ViT-B/16 for published RAM) in transformers' or open_clip's "
        "format, or of a sentence-BERT",
    )
    add_repository(parser, "model repository with the model")
    add(
        "--templates",
        type=Path,
        metavar="FILE",
        help="sentences with {name} and optionally {a}, its article, one per line (default: RAM's)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Load, export and install it."""
    # These come before the imports that take seconds.
    Repository(arguments.repository).require_manifest()
    require_text_encoder(arguments.checkpoint, arguments.templates)

    from ram_triton.text_encoder.checkpoint import load_text_encoder
    from ram_triton.text_encoder.install import install_text_encoder
    from ram_triton.text_encoder.templates import choose_templates

    encoder = load_text_encoder(arguments.checkpoint)
    templates = choose_templates(encoder.kind, arguments.templates)
    print(f"{arguments.checkpoint}: {encoder.kind}, {encoder.tower.width} wide")
    name = "/".join(arguments.checkpoint.parts[-2:])
    install_text_encoder(encoder, templates, arguments.repository, name)
