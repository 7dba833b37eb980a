"""Add the text encoder of a model's labels to a repository, so that it takes any names."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before its import: nothing is to be fetched

import interruption  # noqa: F401  (before the slow ones)
from ram.repository import RepositoryError
from text_encoder.build import install_text_encoder
from text_encoder.checkpoint import TextEncoderError
from text_encoder.chosen import DEMO, choose_text_encoder

HERE = Path(__file__).resolve().parent


def main(command_line: Sequence[str] | None = None) -> int:
    """Add what the arguments say, or say in one line what is wrong; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        run(arguments)
    except (TextEncoderError, RepositoryError) as error:
        print(f"make text-encoder: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make text-encoder: interrupted, run it again", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Load, export and install it.

    Raises:
        TextEncoderError, RepositoryError: something can't be used.
    """
    encoder, templates = choose_text_encoder(arguments.checkpoint, arguments.templates)
    print(f"{arguments.checkpoint}: {encoder.kind}, {encoder.tower.width} wide")
    name = Path(arguments.checkpoint).name
    install_text_encoder(encoder, templates, arguments.repository, name)


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="DIR",
        help="folder of a CLIP (ViT-B/16 for published RAM) in transformers' or open_clip's "
             f"format, or of a sentence-BERT; '{DEMO}' is that of the demo's labels")  # fmt: skip
    add("--repository", type=Path, default=HERE.parent / "model_repository", metavar="DIR",
        help="model repository with the model (default: this one's)")  # fmt: skip
    add("--templates", type=Path, metavar="FILE",
        help="sentences with {name} and, for its article, {a}, one a line "
             "(default: RAM's)")  # fmt: skip
    return parser.parse_args(command_line)


if __name__ == "__main__":
    sys.exit(main())
