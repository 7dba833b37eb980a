"""Make a checkpoint that recognises a list of names, out of one that recognises others.

What comes out is a folder with a checkpoint and its tag lists, which `make model` takes as any
other: the labels are embedded once, and folded into the head.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import interruption  # noqa: F401  (before the slow ones)
from ram.checkpoint import CheckpointError, load_model
from ram.custom_vocabulary import (
    CHECKPOINT,
    NEW_THRESHOLD,
    Embed,
    choose_labels,
    load_embed,
    write_labels,
)
from ram.name_list import read_names
from ram.tag_lists import DEFAULT_THRESHOLD, VocabularyError, read_threshold, read_vocabulary

DEMO = "demo"  # the demo's, a package


def main(command_line: Sequence[str] | None = None) -> int:
    """Make it, or say what is wrong, a line for each fault; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        run(arguments)
    except (CheckpointError, VocabularyError) as error:
        for line in str(error).splitlines():
            print(f"make vocabulary: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make vocabulary: interrupted, run it again", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Make the vocabulary.

    Raises:
        CheckpointError, VocabularyError: something can't be used.
    """
    known_threshold, new_threshold = DEFAULT_THRESHOLD, NEW_THRESHOLD
    if arguments.default_threshold is not None:
        known_threshold = read_threshold(arguments.default_threshold, "--default-threshold")
        new_threshold = known_threshold
    output = arguments.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise VocabularyError(f"{output}: is there already; remove it, or choose another OUTPUT")
    names = read_names(arguments.names)
    embed = choose_embed(arguments.text_encoder) if arguments.text_encoder else None
    model = load_model(arguments.checkpoint)
    own = read_vocabulary(arguments.vocabulary, model.variant.num_tags, known_threshold)
    labels = choose_labels(names, model, own, new_threshold, embed)
    write_labels(model, labels, output)
    print(
        f"{output}: {len(names)} tags, {labels.known} of them the checkpoint's own; "
        f"make model CHECKPOINT='{output / CHECKPOINT}' VOCABULARY='{output}'"
    )


def choose_embed(spec: str) -> Embed:
    """Return the text encoder that is meant: a checkpoint's folder, `demo`, or a function.

    Raises:
        VocabularyError: it can't be used.
    """
    if not Path(spec).is_dir() and spec != DEMO:
        return load_embed(spec)
    try:
        from text_encoder.checkpoint import TextEncoderError
        from text_encoder.chosen import choose_text_encoder, embedder
    except ImportError as error:
        raise VocabularyError(
            f"the text encoder needs the package {error.name}: 'make vocabulary TEXT_ENCODER=…' "
            "installs it"
        ) from error
    try:
        return embedder(*choose_text_encoder(spec))
    except TextEncoderError as error:
        raise VocabularyError(str(error)) from error


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--names", type=Path, required=True, metavar="FILE",
        help="text, a name a line, a Chinese name and a threshold may follow after tabs or "
             "commas; .csv with a header; or a folder with ram_tag_list.txt")  # fmt: skip
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--checkpoint", type=Path, required=True, metavar="FILE",
        help="RAM or RAM++ checkpoint in the published format, .pth or .safetensors")  # fmt: skip
    add("--vocabulary", type=Path, required=True, metavar="DIR",
        help="folder with the tag lists of that checkpoint")  # fmt: skip
    add("--text-encoder", metavar="DIR|MODULE:FUNCTION",
        help="what embedded the checkpoint's labels, for names that it does not know: a folder as "
             "'make text-encoder' takes it; or a function that takes a list of names and returns "
             "float32 (names, width)")  # fmt: skip
    add("--default-threshold", metavar="SCORE",
        help=f"for names that come without one (default: {NEW_THRESHOLD} where the checkpoint does "
             f"not know them, {DEFAULT_THRESHOLD} where its lists say nothing)")  # fmt: skip
    return parser.parse_args(command_line)


if __name__ == "__main__":
    sys.exit(main())
