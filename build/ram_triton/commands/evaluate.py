"""Measure a trained RAM on splits of its data, and choose its tags' thresholds."""

import argparse
from pathlib import Path

from ram_triton.arguments import natural
from ram_triton.files import require_file
from ram_triton.model.weight_files import weight_files
from ram_triton.vocabulary.tag_lists import THRESHOLDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="what `ram-triton train` was given")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="the model to measure, .pth or .safetensors (default: what training wrote)",
    )
    add(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="a split to measure; may be repeated (default: all but training)",
    )
    add(
        "--thresholds",
        type=Path,
        metavar="DIR",
        help=f"folder for {THRESHOLDS}, chosen on the validation split "
        "(default: the training's output)",
    )
    add("--json", type=Path, metavar="FILE", help="file for the figures")
    add(
        "--threads",
        type=natural,
        default=0,
        metavar="N",
        help="threads on a CPU (default: one per core)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, and print a table."""
    require_file(arguments.config)  # before the imports that take seconds
    if arguments.checkpoint:
        weight_files(arguments.checkpoint)

    from rich.console import Console

    from ram_triton.training.evaluate import evaluate_run, table

    reports = evaluate_run(
        arguments.config,
        arguments.checkpoint,
        arguments.split,
        arguments.thresholds,
        arguments.json,
        arguments.threads,
    )
    Console().print(table(reports))
