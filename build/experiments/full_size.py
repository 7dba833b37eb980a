"""Build and serve a RAM of full size, and print what each step takes in time and memory.

The weights are noise: the sizes are those of published checkpoints, the tags mean nothing. How fast
the result is, `build/bench.py` measures.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ram_triton.bench.machine import peak_memory, processor, resident_peak
from ram_triton.model.variant import BACKBONES
from ram_triton.server import TritonServer

NUM_TAGS = 4585
GIGABYTE = 1e9
# The steps of make_model.py and, for each, what the line says that ends it.
MAKE_MODEL = {
    "make model: load the checkpoint": "exporting",
    "make model: export to ONNX": "checking",
    "make model: compare with PyTorch": "largest logit difference",
    "make model: half-precision graphs": "activations reach",
    "make model: open head, install": "ready to serve",
}


def main() -> None:
    """Read the arguments, run the steps in a temporary folder, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_l")
    parser.add_argument("--image-size", choices=("224", "384"), default="384")
    arguments = parser.parse_args()
    print(
        f"{arguments.backbone} at {arguments.image_size} px, {NUM_TAGS} tags, on "
        f"{os.cpu_count()} cores of {processor()}"
    )
    print("| step | time | memory at its peak |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for step, seconds, memory in measure(arguments, Path(folder)):
            print(f"| {step} | {seconds:.1f} s | {memory / GIGABYTE:.1f} GB |", flush=True)


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, float, int]]:
    """Yield each step's name, its seconds and the bytes of memory at its peak."""
    shape = ["--backbone", arguments.backbone, "--image-size", arguments.image_size]
    checkpoint, repository = folder / "ram.pth", folder / "models"
    steps = {"write a checkpoint of noise": "weights are noise"}
    yield from run(
        ["experiments.random_checkpoint"],
        steps,
        *shape,
        "--tags",
        NUM_TAGS,
        "--vocabulary",
        folder,
        checkpoint,
    )
    yield from run(
        ["ram_triton", "model"],
        MAKE_MODEL,
        *shape,
        "--checkpoint",
        checkpoint,
        "--vocabulary",
        folder,
        "--repository",
        repository,
    )
    start = time.monotonic()
    with TritonServer(repository) as server:
        yield "start tritonserver until ready", time.monotonic() - start, peak_memory(server)


def run(
    module: list[str], steps: dict[str, str], *arguments: object
) -> Iterator[tuple[str, float, int]]:
    """Run one of the build's scripts, whose output tells where a step ends.

    Args:
        script: its file name.
        steps: names of its steps and, for each, what the line says that ends it.
        arguments: of the script.

    Yields:
        A step's name, its seconds, and the peak resident bytes so far.
    """
    command = [sys.executable, "-u", "-m", *module, *map(str, arguments)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for step, ending in steps.items():
            if not any(ending in line for line in iter(process.stdout.readline, "")):
                sys.exit(f"{' '.join(module)} failed in the step '{step}'")
            end = time.monotonic()
            yield step, end - start, resident_peak(process.pid)
            start = end


if __name__ == "__main__":
    main()
