"""Measure how fast a repository tags pictures here, beside PyTorch, and where the time goes.

Everything is measured in turn, in a random order, repeatedly, and every answer is compared with
PyTorch's: a wrong one fails the benchmark.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ram_triton.arguments import add_repository, not_negative, positive
from ram_triton.repository.layout import PROJECT

if TYPE_CHECKING:
    from ram_triton.bench.contest import Competitor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add_repository(parser, "model repository to measure")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="of the model, for PyTorch; without it the float32 graphs are the reference",
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
        help="pictures to tag (default: some of 2 megapixels, made here)",
    )
    add("--concurrency", type=positive, nargs="+", default=[1, 2, 4], metavar="CLIENTS")
    add("--batch", type=positive, nargs="+", default=[1, 8], metavar="IMAGES")
    add("--repeats", type=positive, default=5, help="rounds of everything (%(default)s)")
    add("--seconds", type=not_negative, default=3, help="of each turn (%(default)s)")
    add(
        "--shrink",
        type=positive,
        default=1,
        metavar="TIMES",
        help="smaller pictures and matrices for the preprocessor's and the machine's own figures",
    )
    add("--seed", type=int, default=0, help="of the order of turns")
    add("--output", type=Path, default=PROJECT / "runs" / "bench", metavar="DIR")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, write JSON and picture."""
    from ram_triton.bench import chart, table
    from ram_triton.bench.run import Settings, require_writable, run

    output = arguments.output
    require_writable(output)
    result = run(
        Settings(
            repository=arguments.repository,
            checkpoint=arguments.checkpoint,
            server=arguments.server,
            images=arguments.images,
            concurrencies=tuple(arguments.concurrency),
            batches=tuple(arguments.batch),
            repeats=arguments.repeats,
            seconds=arguments.seconds,
            shrink=arguments.shrink,
            seed=arguments.seed,
        ),
        show_turn,
    )
    print(file=sys.stderr)
    print("\n".join(table.lines(result)))
    result.write(output / "bench.json")
    chart.draw(result, output / "bench.png")
    print(f"\nWritten: {output / 'bench.json'}, {output / 'bench.png'}")


def show_turn(competitor: "Competitor", turn: int) -> None:
    """Show on stderr what is being measured."""
    what = f"{competitor.way}, batch {competitor.batch}, {competitor.concurrency} clients"
    line = f"round {turn}: {what}" if turn else f"warming up: {what}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)
