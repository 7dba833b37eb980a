"""Print where the engine's time goes on this CPU: the share of each kind of operator.

It runs the graphs of a repository as the CPU profile does, with OpenVINO's counters on. `make
bench` compares the engine with the machine's own matrix products; all other operators come on top.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import openvino
from ram_triton.arguments import add_repository, positive
from ram_triton.bench.machine import cores, processor
from ram_triton.bench.measurement import markdown_table
from ram_triton.cli import run_module
from ram_triton.engines.openvino import SERVED, compile_for_cpu
from ram_triton.model.variant import Variant
from ram_triton.repository.layout import ENCODER, HEAD
from ram_triton.repository.repository import Repository

SMALLEST = 0.005  # a share that has a row of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository with the graphs")
    add = parser.add_argument
    add("--batch", type=positive, default=1, metavar="IMAGES")
    add("--runs", type=positive, default=3, help="after one that is not counted (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    manifest = Repository(arguments.repository).require_manifest()
    variant = Variant.from_dict(manifest["variant"])
    taken = measure(arguments.repository, variant, arguments.batch, arguments.runs)
    total = sum(taken.values())
    print(f"{variant}, batch of {arguments.batch}, on {cores()} cores of {processor()}:\n")
    shown = {name: ms for name, ms in taken.most_common() if ms >= SMALLEST * total}
    rest = {"others": total - sum(shown.values()), "all": total}
    rows = ((name, f"{ms:.1f}", f"{ms / total:.3f}") for name, ms in (shown | rest).items())
    print("\n".join(markdown_table(("operator", "ms", "share"), rows)))


def measure(repository: Path, variant: Variant, batch: int, runs: int) -> Counter[str]:
    """Return the milliseconds of a batch that each kind of operator takes, encoder and head.

    Products are named by the precision that they are computed in.
    """
    random = np.random.default_rng(0)
    shape = (batch, variant.image_size, variant.image_size, 3)
    fed = random.integers(0, 256, shape, np.uint8)
    taken: Counter[str] = Counter()
    for graph in (ENCODER, HEAD):
        model = compile_for_cpu(repository / graph, {**SERVED, "PERF_COUNT": True})
        request = model.create_infer_request()
        for number in range(runs + 1):
            request.infer([fed])
            for node in request.profiling_info if number else ():
                taken[kind(node)] += node.real_time.total_seconds() * 1000 / runs
        fed = request.get_output_tensor(0).data.copy()
    return taken


def kind(node: openvino.ProfilingInfo) -> str:
    """Return an operator's name, for products with the precision, which ends the kernel's name."""
    if node.node_type in ("FullyConnected", "MatMul", "Convolution"):
        return f"{node.node_type}, {node.exec_type.rsplit('_', 1)[-1]}"
    return node.node_type


if __name__ == "__main__":
    sys.exit(run_module("experiments.operators", sys.modules[__name__]))
