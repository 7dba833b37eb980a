"""Measure what labels cost: the head that takes them with each request, against the fixed one.

The head is of full size (145 image tokens, 512 wide, two layers) with weights of noise; the engine
is the CPU profile's. Prints a table for the README.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
from ram_triton.graphs.export import export_head, export_open_head
from ram_triton.model.noise import published_variant, random_model

COUNTS = (10, 214, 1000, 4585)  # 214: OpenImages' tags in RAM's paper
TAGS = 4585


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    arguments = parse_arguments(command_line)
    with tempfile.TemporaryDirectory(prefix="ram-labels-") as folder:
        heads = compile_heads(Path(folder))
    times = measure(heads, arguments.runs)
    fixed = times["fixed"]
    print(f"| labels | share of {TAGS:,} | time | of the fixed head's |\n|---|---|---|---|")
    print(f"| fixed, {TAGS:,} | | {1000 * fixed:.0f} ms | 1 |")
    for count in COUNTS:
        taken = times[str(count)]
        print(f"| {count:,} | {count / TAGS:.3f} | {1000 * taken:.1f} ms | {taken / fixed:.3f} |")
    return 0


def compile_heads(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what runs the fixed head, and the other one with each number of labels."""
    # The encoder is not needed, and may be small.
    small = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    model = random_model(replace(published_variant("swin_l", 384, TAGS), **small))
    export_head(model, folder / "fixed.onnx")
    export_open_head(model, folder / "open.onnx")
    hint = {"PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    fixed, opened = (
        core.compile_model(folder / f"{name}.onnx", "CPU", hint) for name in ("fixed", "open")
    )
    variant, random = model.variant, np.random.default_rng(0)
    shape = 1, variant.num_tokens, variant.image_width
    image_embeds = random.normal(size=shape).astype(np.float32)
    labels = model.label_embed.detach().numpy()

    def run_open(count: int) -> Callable[[], object]:
        inputs = {"image_embeds": image_embeds, "label_embeds": labels[:count].copy()}
        return lambda: opened(inputs)

    return {"fixed": lambda: fixed(image_embeds)} | {str(c): run_open(c) for c in COUNTS}


def measure(heads: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Return each one's fastest run in seconds: what else the machine does only slows one down.

    They run by turns, so that all meet the same machine.
    """
    times: dict[str, list[float]] = {name: [] for name in heads}
    for _ in range(runs + 1):  # the first warms up
        for name, head in heads.items():
            started = time.perf_counter()
            head()
            times[name].append(time.perf_counter() - started)
    return {name: min(taken[1:]) for name, taken in times.items()}


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="of each (default: %(default)s)")
    return parser.parse_args(command_line)


if __name__ == "__main__":
    sys.exit(main())
