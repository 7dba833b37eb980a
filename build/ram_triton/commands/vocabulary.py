"""Make a checkpoint that recognises a list of names, from one that recognises others.

The result is a folder with a checkpoint and its tag lists, which 'make model' takes like any
other: the labels are embedded once, and folded into the head.
"""

import argparse
from pathlib import Path

from ram_triton.model.weight_files import weight_files
from ram_triton.vocabulary.embed import require_text_encoder
from ram_triton.vocabulary.names import read_names
from ram_triton.vocabulary.tag_lists import (
    DEFAULT_THRESHOLD,
    NEW_THRESHOLD,
    read_columns,
    read_threshold,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--names",
        type=Path,
        required=True,
        metavar="FILE",
        help="text with one name per line, optionally followed by a Chinese name and a threshold, "
        "separated by tabs or commas; .csv with a header; or a folder with ram_tag_list.txt",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="RAM or RAM++ checkpoint, .pth or .safetensors, or a folder with its parts",
    )
    add(
        "--vocabulary",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with the tag lists of that checkpoint",
    )
    add(
        "--text-encoder",
        metavar="DIR|MODULE:FUNCTION",
        help="for names that the checkpoint does not know: the text encoder that produced its "
        "label embeddings; a folder as for 'make text-encoder', or a function that takes a list of "
        "names and returns float32 (names, width)",
    )
    add(
        "--templates",
        type=Path,
        metavar="FILE",
        help="sentences for a text encoder's folder, as for 'make text-encoder' (default: RAM's)",
    )
    add(
        "--default-threshold",
        metavar="SCORE",
        help=f"for names without one (default: {NEW_THRESHOLD} if the checkpoint does not know the "
        f"name, {DEFAULT_THRESHOLD} if its lists do not specify it)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Make the vocabulary."""
    threshold = arguments.default_threshold
    if threshold is not None:
        threshold = read_threshold(threshold, "--default-threshold")

    # These come before the imports that take seconds.
    read_names(arguments.names)
    weight_files(arguments.checkpoint)
    read_columns(arguments.vocabulary)
    if arguments.text_encoder:
        require_text_encoder(arguments.text_encoder, arguments.templates)

    from ram_triton.vocabulary.choose import make_vocabulary

    make_vocabulary(
        arguments.names,
        arguments.output,
        arguments.checkpoint,
        arguments.vocabulary,
        arguments.text_encoder,
        arguments.templates,
        threshold,
    )
