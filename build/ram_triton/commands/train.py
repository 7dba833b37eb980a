"""Train RAM as a configuration file specifies; started again, resume where it was stopped."""

import argparse
import sys
from pathlib import Path

from ram_triton.files import require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train, and how")
    parser.add_argument(
        "--restart", action="store_true", help="delete what was trained so far, and start again"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; returns 128 + N after signal N, which waits until a step is done."""
    require_file(arguments.config)  # before the imports that take seconds

    from ram_triton.training.progress import Progress
    from ram_triton.training.trainer import Interrupted, train

    progress = Progress()
    try:
        path = train(arguments.config, arguments.restart, progress)
    except Interrupted as interrupted:
        print("ram-triton train: interrupted; the same command resumes it", file=sys.stderr)
        return 128 + interrupted.signal
    progress.log(f"{path}: trained")
    return 0
