"""Measure how fast a model repository tags pictures here, beside PyTorch, and where the time goes.

Everything takes turns in a random order, is repeated, and every answer is compared with PyTorch's:
a wrong one fails the benchmark.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmark import chart, table
from benchmark.answers import WrongAnswer
from benchmark.contest import Competitor
from benchmark.run import BenchmarkError, Settings, run
from ram.checkpoint import CheckpointError
from ram.engine import EngineError
from ram.engine_config import EngineConfigError
from ram.pictures import PictureError
from ram.repository import RepositoryError
from triton_server import ServerError, stop_in_order_on_signals
from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).resolve().parents[1]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write JSON and picture; returns the exit status."""
    arguments = parse_arguments(command_line)
    stop_in_order_on_signals()
    output = arguments.output
    try:
        require_writable(output)
        result = run(settings(arguments), tell)
    except (
        BenchmarkError, CheckpointError, EngineError, EngineConfigError, PictureError, ServerError,
        RepositoryError, WrongAnswer,
    ) as error:  # fmt: skip
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except InferenceServerException as error:
        print(f"\nbench: the server: {error.message()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130
    print(file=sys.stderr)
    print("\n".join(table.lines(result)))
    result.write(output / "bench.json")
    chart.draw(result, output / "bench.png")
    print(f"\nWritten: {output / 'bench.json'}, {output / 'bench.png'}")
    return 0


def require_writable(folder: Path) -> None:
    """Make a folder, and check that files can be written there, before anything takes long.

    Raises:
        BenchmarkError: they can't; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchmarkError(f"{folder}: can't be written ({error.strerror})") from error


def settings(arguments: argparse.Namespace) -> Settings:
    """Return what the arguments ask for."""
    return Settings(
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
    )


def tell(competitor: Competitor, turn: int) -> None:
    """Say on stderr what is being measured."""
    what = f"{competitor.way}, batch {competitor.batch}, {competitor.concurrency} clients"
    line = f"round {turn}: {what}" if turn else f"warming up: {what}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
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
    add("--concurrency", type=at_least_1, nargs="+", default=[1, 2, 4], metavar="CLIENTS")
    add("--batch", type=at_least_1, nargs="+", default=[1, 8], metavar="IMAGES")
    add("--repeats", type=at_least_1, default=5, help="rounds of everything (%(default)s)")
    add("--seconds", type=at_least_0, default=3, help="of each turn (%(default)s)")
    add(
        "--shrink",
        type=at_least_1,
        default=1,
        metavar="TIMES",
        help="smaller pictures and matrices for the preprocessor's and the machine's own figures",
    )
    add("--seed", type=int, default=0, help="of the order of turns")
    add("--output", type=Path, default=ROOT / "runs" / "bench", metavar="DIR")
    return parser.parse_args(command_line)  # fmt: skip


def at_least_1(text: str) -> int:
    """Read a positive whole number."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def at_least_0(text: str) -> float:
    """Read a number that is not negative."""
    if not 0 <= (number := float(text)) < math.inf:  # so that NaN is refused too
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return number


if __name__ == "__main__":
    sys.exit(main())
