"""Build and serve a RAM of full size, and print what each step takes in time and memory.

The weights are noise: the sizes are those of published checkpoints, the tags mean nothing. `make
bench` measures how fast the result is: --write writes the checkpoint alone, to try sizes with.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from ram_triton.bench.machine import cores, peak_memory, processor
from ram_triton.cli import run_module
from ram_triton.errors import BenchmarkError
from ram_triton.model.checkpoint import random_model, save_model
from ram_triton.model.variant import BACKBONES, published_variant
from ram_triton.progress import GIGABYTE, Step
from ram_triton.repository.repository import Repository
from ram_triton.server import TritonServer
from ram_triton.vocabulary.tag_lists import write_names

CHECKPOINT = "ram.pth"
NUM_TAGS = 4585


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="swin_l", help="default: %(default)s")
    add("--image-size", type=int, choices=(224, 384), default=384, help="default: %(default)s")
    add("--write", type=Path, metavar="DIR", help="only write the checkpoint and its tag lists")


def run(arguments: argparse.Namespace) -> None:
    """Run the steps in a temporary folder, and print a table; or only write the checkpoint."""
    if arguments.write:
        write(arguments.backbone, arguments.image_size, arguments.write)
        return
    print(
        f"{arguments.backbone} at {arguments.image_size} px, {NUM_TAGS} tags, on "
        f"{cores()} cores of {processor()}"
    )
    print("| step | time | memory at its peak |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="ram-full-size-") as folder:
        for step in measure(arguments.backbone, arguments.image_size, Path(folder)):
            memory = f"{step.peak_bytes / GIGABYTE:.1f} GB"
            print(f"| {step.step} | {step.seconds:.1f} s | {memory} |", flush=True)


def write(backbone: str, image_size: int, folder: Path) -> None:
    """Write a checkpoint of noise, and tag lists for it with names that are numbers."""
    variant = published_variant(backbone, image_size, NUM_TAGS)
    save_model(random_model(variant), folder / CHECKPOINT)
    tags, tags_zh = ([f"{word} {number}" for number in range(NUM_TAGS)] for word in ("tag", "标签"))
    write_names(tags, tags_zh, folder)
    print(f"{folder / CHECKPOINT}: {variant}, weights are noise")


def measure(backbone: str, image_size: int, folder: Path) -> Iterator[Step]:
    """Write a checkpoint, build it and serve it; yields what each step takes."""
    shape = "--backbone", backbone, "--image-size", image_size
    yield measure_program(
        "write a checkpoint of noise", "experiments.full_size", *shape, "--write", folder
    )
    repository = folder / "models"
    files = "--checkpoint", folder / CHECKPOINT, "--vocabulary", folder, "--repository", repository
    yield from measure_build(*shape, *files, repository=repository)
    start = perf_counter()
    with TritonServer(repository) as server:
        yield Step("start tritonserver until ready", perf_counter() - start, peak_memory(server))


def measure_build(*arguments: object, repository: Path) -> Iterator[Step]:
    """Run `ram-triton model`; yields its steps, what is left of its time, and all of it."""
    whole = measure_program("make model", "ram_triton", "model", *arguments)
    steps = [Step(**step) for step in Repository(repository).require_manifest()["steps"]]
    for step in steps:
        yield Step(f"make model: {step.step}", step.seconds, step.peak_bytes)
    seconds = whole.seconds - sum(step.seconds for step in steps)
    yield Step("make model: start and install", seconds, whole.peak_bytes)
    # A step forgets the peak of the one before it, and the process has only the last one's.
    yield replace(whole, peak_bytes=max(step.peak_bytes for step in (*steps, whole)))


def measure_program(name: str, module: str, *arguments: object) -> Step:
    """Run a module as a program, which prints to stderr; returns what it took.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    start = perf_counter()
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"{module} failed in the step '{name}'")
    return Step(name, perf_counter() - start, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(run_module("experiments.full_size", sys.modules[__name__]))
