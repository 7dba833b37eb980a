"""Measure how fast a repository tags pictures here, beside PyTorch, and where the time goes.

Everything is measured in rounds, in a random order, and every answer is compared with PyTorch's: a
wrong one fails the benchmark.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ram_triton.arguments import add_repository, not_negative, positive
from ram_triton.model.weight_files import weight_files
from ram_triton.parity.pictures import picture_files
from ram_triton.repository.layout import PROJECT
from ram_triton.repository.repository import Repository

if TYPE_CHECKING:
    from ram_triton.bench.candidates import Candidate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add_repository(parser, "model repository to measure")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="the one that the repository was built from, for PyTorch; without it the float32 "
        "graphs are the reference",
    )
    add(
        "--server",
        metavar="HOST:PORT",
        help="gRPC address of a server with this repository; without it one is started on the CPU",
    )
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="pictures to tag (default: photographs of 2 megapixels, made here)",
    )
    add(
        "--concurrency",
        type=positive,
        nargs="+",
        default=[1, 2, 4],
        metavar="CLIENTS",
        help="requests at once to the server (default: 1 2 4)",
    )
    add(
        "--batch",
        type=positive,
        nargs="+",
        default=[1, 8],
        metavar="IMAGES",
        help="images per request (default: 1 8)",
    )
    add("--repeats", type=positive, default=5, help="number of rounds (default: %(default)s)")
    add(
        "--seconds",
        type=not_negative,
        default=3,
        help="seconds per measurement and round (default: %(default)s)",
    )
    add(
        "--shrink",
        type=positive,
        default=1,
        metavar="TIMES",
        help="smaller pictures and matrices to measure the preprocessor and the machine with, to "
        "try things out",
    )
    add(
        "--seed", type=int, default=0, help="seed of the order in each round (default: %(default)s)"
    )
    add(
        "--output",
        type=Path,
        default=PROJECT / "runs" / "bench",
        metavar="DIR",
        help="folder for bench.json and bench.png (default: the project's runs/bench)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, write JSON and picture."""
    # These come before the imports that take seconds.
    Repository(arguments.repository).require_manifest()
    if arguments.checkpoint:
        weight_files(arguments.checkpoint)
    if arguments.images:
        picture_files(arguments.images)

    from ram_triton.bench import report
    from ram_triton.bench.run import Settings, run
    from ram_triton.files import require_writable_folder, write_atomically

    output = arguments.output
    require_writable_folder(output)
    settings = Settings(
        repository=arguments.repository,
        checkpoint=arguments.checkpoint,
        server=arguments.server,
        images=arguments.images,
        concurrencies=tuple(arguments.concurrency),
        batches=tuple(arguments.batch),
        rounds=arguments.repeats,
        seconds=arguments.seconds,
        shrink=arguments.shrink,
        seed=arguments.seed,
    )
    result = run(settings, lambda line: print(line, file=sys.stderr), show_turn)
    print(file=sys.stderr)
    print("\n".join(report.lines(result)))
    contents = json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(output / "bench.json", contents)
    report.draw(result, output / "bench.png")
    print(f"\nWritten: {output / 'bench.json'}, {output / 'bench.png'}")


def show_turn(candidate: "Candidate", number: int) -> None:
    """Show on stderr what is being measured."""
    what = f"{candidate.name}, batch {candidate.batch}, {candidate.concurrency} clients"
    line = f"round {number}: {what}" if number else f"warming up: {what}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)
