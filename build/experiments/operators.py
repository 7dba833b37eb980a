"""Measure where the engine's time goes on this CPU: the share of each kind of operator.

It runs the graphs of a repository as the CPU profile does, with OpenVINO's counters on. Products
of matrices are what the machine's own figure in `make bench` is of; all else comes on top of them.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
from ram_triton.bench.machine import cores, processor
from ram_triton.errors import RepositoryError
from ram_triton.model.variant import Variant
from ram_triton.repository import layout
from ram_triton.repository.repository import Repository

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = 0.005  # a share that is shown by itself


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, print a table; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        manifest = Repository(arguments.repository).manifest()
        if manifest is None:
            raise RepositoryError(f"{arguments.repository}: holds no model")
    except RepositoryError as error:
        print(f"measure_operators: {error}", file=sys.stderr)
        return 1
    variant = Variant.from_dict(manifest["variant"])
    taken = measure(arguments.repository, variant, arguments.batch, arguments.runs)
    total = sum(taken.values())
    print(f"{variant}, batch of {arguments.batch}, on {cores()} cores of {processor()}:\n")
    print("| operator | ms | share |\n|---|---|---|")
    shown = {name: ms for name, ms in taken.most_common() if ms >= SMALLEST * total}
    rest = {"others": total - sum(shown.values()), "all": total}
    for name, ms in (shown | rest).items():
        print(f"| {name} | {ms:.1f} | {ms / total:.3f} |")
    return 0


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    add("--batch", type=int, default=1, metavar="IMAGES")
    add("--runs", type=int, default=3, help="after one that is not counted (%(default)s)")
    return parser.parse_args(command_line)


def measure(repository: Path, variant: Variant, batch: int, runs: int) -> Counter[str]:
    """Return the milliseconds of a batch that each kind of operator takes, encoder and head.

    Products are named by the precision that they are computed in.
    """
    random = np.random.default_rng(0)
    shape = (batch, variant.image_size, variant.image_size, 3)
    fed = random.integers(0, 256, shape, np.uint8)
    taken: Counter[str] = Counter()
    for graph in (layout.ENCODER, layout.HEAD):
        properties = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
        model = openvino.Core().compile_model(repository / graph, "CPU", properties)
        request = model.create_infer_request()
        for run in range(runs + 1):
            request.infer([fed])
            for node in request.profiling_info if run else ():
                taken[_kind(node)] += node.real_time.total_seconds() * 1000 / runs
        fed = request.get_output_tensor(0).data.copy()
    return taken


def _kind(node: openvino.ProfilingInfo) -> str:
    """Name an operator, and of products the precision too, which ends the kernel's name."""
    if node.node_type in ("FullyConnected", "MatMul", "Convolution"):
        return f"{node.node_type}, {node.exec_type.rsplit('_', 1)[-1]}"
    return node.node_type


if __name__ == "__main__":
    sys.exit(main())
