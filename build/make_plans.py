"""Make TensorRT plans of a repository's half-precision graphs, on the GPU that will run them.

To be run in the serving image, so that the TensorRT that loads the plans is the one that made them.
A plan that fits this GPU, this TensorRT and the config is left as it is.

Without a GPU, `--engine tensorrt_rtx` tells whether the graphs can be built as the configs ask.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ram.cuda_device import DeviceError, first_device
from ram.engine import (
    DEFAULT_LEVEL,
    LEVELS,
    MODULES,
    RTX,
    TENSORRT,
    EngineError,
    Options,
    load_tensorrt,
)
from ram.engine_config import EngineConfigError
from ram.plan import PlanBuilder, PlanError, graphs_of, parse
from ram.repository import Repository, RepositoryError

HERE = Path(__file__).resolve().parent
QUIET = 15.0  # seconds between lines where the output is no terminal


def main(command_line: Sequence[str] | None = None) -> int:
    """Make the plans, or say in one line what is wrong; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        if arguments.engine == RTX:
            try_graphs(arguments.repository)
        else:
            make_plans(arguments)
    except (EngineError, DeviceError, EngineConfigError, PlanError, RepositoryError) as error:
        print(f"make plans: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make plans: interrupted, run it again", file=sys.stderr)
        return 130
    return 0


def make_plans(arguments: argparse.Namespace) -> None:
    """Make what does not fit yet.

    Raises:
        EngineError, DeviceError, EngineConfigError, PlanError, RepositoryError: it can't be made.
    """
    builder = PlanBuilder(
        Repository(arguments.repository),
        load_tensorrt(),
        first_device(),
        Options(
            arguments.builder_level, arguments.version_compatible, arguments.hardware_compatible
        ),
    )
    for graph in graphs_of(arguments.repository):
        with ProgressLine(graph.parts[0]) as progress:
            replace(builder, say=progress.say).make(graph, progress, arguments.force)


def try_graphs(repository: Path) -> None:
    """Build engines with TensorRT-RTX, and keep none.

    Raises:
        EngineError, EngineConfigError, PlanError: a graph can't be built.
    """
    trt = load_tensorrt(RTX)
    for graph in graphs_of(repository):
        with ProgressLine(graph.parts[0]) as progress:
            network, profile = parse(trt, repository, graph)
            network.build(profile, advance=progress)
        print(
            f"{graph.parts[0]}: TensorRT-RTX {trt.__version__} builds it for batches of "
            f"{profile.min[0]} to {profile.max[0]}, fastest at {profile.opt[0]}; no plan is written"
        )


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--repository", type=Path, default=HERE.parent / "model_repository", metavar="DIR",
        help="model repository with typed.onnx graphs (default: this one's)")  # fmt: skip
    add("--engine", choices=MODULES, default=TENSORRT,
        help="tensorrt_rtx needs no GPU, and makes no plans: it tries whether the graphs can be "
             "built, and no other option counts (default: %(default)s)")  # fmt: skip
    add("--builder-level", type=int, choices=LEVELS, default=DEFAULT_LEVEL,
        help="5 searches longest for the fastest kernels (default: %(default)s)")  # fmt: skip
    add("--version-compatible", action="store_true",
        help="plans that later versions of this TensorRT load too. The price: they may be slower, "
             "are larger by a runtime that they carry, and run code of their own, so tritonserver "
             "must be told --backend-config=tensorrt,version-compatible=true")  # fmt: skip
    add("--hardware-compatible", action="store_true",
        help="plans that all GPUs from Ampere on run. The price: they are slower, as they use "
             "nothing that only newer or larger GPUs have")  # fmt: skip
    add("--force", action="store_true", help="make them again, even where there are plans that fit")
    return parser.parse_args(command_line)


class ProgressLine:
    """One line on stderr that tells how far a build is; a context manager."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.started = self.told = time.monotonic()
        self.width = 0

    def __call__(self, phase: str, share: float) -> None:
        """Tell what is being done and how much of it is done, 0 to 1."""
        now = time.monotonic()
        text = f"{self.model}: {now - self.started:.0f} s, {phase.lower()}, {share:.0%}"
        if sys.stderr.isatty():
            sys.stderr.write("\r" + text.ljust(self.width))
            sys.stderr.flush()
            self.width = len(text)
        elif now - self.told >= QUIET:
            print(text, file=sys.stderr, flush=True)
            self.told = now

    def say(self, text: str) -> None:
        """Print a line on stdout, in the place of this one."""
        self.clear()
        print(text, flush=True)

    def clear(self) -> None:
        """Take the line away: the next one starts where it stood."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


if __name__ == "__main__":
    sys.exit(main())
