"""Embed a list of names: the label embeddings that a training starts from.

The text encoder must be the one of the checkpoint that is trained further, if there is one.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--names",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="the tags: the training's vocabulary folder, or a list as for 'make vocabulary'",
    )
    add(
        "--text-encoder",
        required=True,
        metavar="DIR|MODULE:FUNCTION",
        help="a folder as for 'make text-encoder', or a function that takes a list of names and "
        "returns float32 (names, width)",
    )
    add(
        "--templates",
        type=Path,
        metavar="FILE",
        help="sentences for a text encoder's folder, as for 'make text-encoder' (default: RAM's)",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FILE.npy",
        help="file to make: float32 (tags, width), in the list's order",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the label embeddings."""
    from ram_triton.vocabulary.embed import write_label_embeddings

    tags, width = write_label_embeddings(
        arguments.names, arguments.text_encoder, arguments.output, arguments.templates
    )
    print(f"{arguments.output}: label embeddings of {tags} tags, {width} wide")
