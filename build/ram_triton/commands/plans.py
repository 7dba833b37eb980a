"""Make TensorRT plans of a repository's half-precision graphs, on the GPU that will run them.

Run this in the serving image, so that the TensorRT that loads the plans is the one that made them.
A plan that fits this GPU, this TensorRT and the config is left as it is.

Without a GPU, --engine tensorrt_rtx checks whether the graphs can be built as the configs ask.
"""

import argparse

from ram_triton.arguments import add_repository
from ram_triton.engines.tensorrt import (
    DEFAULT_LEVEL,
    LEVELS,
    MODULES,
    RTX,
    TENSORRT,
    BuilderOptions,
)
from ram_triton.repository.repository import Repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add_repository(parser, "model repository with half-precision graphs")
    add(
        "--engine",
        choices=MODULES,
        default=TENSORRT,
        help="tensorrt_rtx needs no GPU and makes no plans: it checks whether the graphs can be "
        "built, and no other option counts (default: %(default)s)",
    )
    add(
        "--builder-level",
        type=int,
        choices=LEVELS,
        default=DEFAULT_LEVEL,
        help="5 searches longest for the fastest kernels (default: %(default)s)",
    )
    add(
        "--version-compatible",
        action="store_true",
        help="plans that later versions of this TensorRT load too. The price: they may be slower, "
        "are larger by a runtime that they carry, and run code of their own, so tritonserver "
        "needs --backend-config=tensorrt,version-compatible=true",
    )
    add(
        "--hardware-compatible",
        action="store_true",
        help="plans that all GPUs from Ampere on run. The price: they are slower, as they use "
        "nothing that only newer or larger GPUs have",
    )
    add(
        "--force",
        action="store_true",
        help="make all plans again, even if those that are there fit",
    )


def run(arguments: argparse.Namespace) -> None:
    """Make the plans, or try whether they can be made."""
    Repository(arguments.repository).require_manifest()  # before TensorRT is looked for

    from ram_triton.plans import make_plans, try_graphs

    if arguments.engine == RTX:
        try_graphs(arguments.repository)
    else:
        options = BuilderOptions(
            arguments.builder_level, arguments.version_compatible, arguments.hardware_compatible
        )
        make_plans(arguments.repository, options, arguments.force)
