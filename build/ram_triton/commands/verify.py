"""Compare what a repository contains, or what a server answers, with its checkpoint in PyTorch.

Every picture of a folder goes through the served preprocessing, and then through both. The exit
status is 0 only if all that was compared agrees, within the limits that the build has too.
"""

import argparse
import sys
from pathlib import Path

from ram_triton.arguments import add_repository
from ram_triton.model.weight_files import weight_files
from ram_triton.parity.pictures import picture_files
from ram_triton.repository.layout import DEMO_IMAGES, GRAPH_FILES
from ram_triton.repository.repository import Repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add_repository(parser, "model repository")
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="the one that the repository was built from",
    )
    add(
        "--images",
        type=Path,
        default=DEMO_IMAGES,
        metavar="DIR",
        help="pictures to compare on (default: the demo's)",
    )
    add(
        "--format",
        choices=GRAPH_FILES,
        action="append",
        default=[],
        help="compare only this; may be repeated (default: all that are there)",
    )
    add(
        "--server",
        metavar="HOST:PORT",
        help="compare what the server at this gRPC address answers, instead of files",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print a table; returns the exit status."""
    # These come before the imports that take seconds.
    Repository(arguments.repository).require_manifest()
    weight_files(arguments.checkpoint)
    picture_files(arguments.images)

    from ram_triton.parity.verify import print_table, verify

    comparisons = verify(
        arguments.repository,
        arguments.checkpoint,
        arguments.images,
        arguments.format,
        arguments.server,
    )
    print(f"{arguments.checkpoint} in PyTorch, float32, on the pictures in {arguments.images}")
    print_table(comparisons)
    for comparison in comparisons:
        for fault in comparison.faults:
            print(f"ram-triton verify: {comparison.name}: {fault}", file=sys.stderr)
    return int(any(comparison.faults for comparison in comparisons))
