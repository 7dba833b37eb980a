"""Build and serve a RAM of full size, and print what each step takes in time and memory.

The weights are noise: the sizes are those of published checkpoints, the tags mean nothing.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ram.tag_lists import CHINESE, ENGLISH
from ram.variant import BACKBONES
from ram_client import RamClient
from triton_server import TritonServer

HERE = Path(__file__).resolve().parent
NUM_TAGS = 4585
REQUESTS = 5
GIGABYTE = 1e9


def main() -> None:
    """Read the arguments, run the steps in a temporary folder, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_l")
    parser.add_argument("--image-size", choices=("224", "384"), default="384")
    arguments = parser.parse_args()
    print(f"{arguments.backbone} at {arguments.image_size} px, {NUM_TAGS} tags, float32, on "
          f"{os.cpu_count()} cores of {processor()}")  # fmt: skip
    print("| step | time | memory at its peak |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for step, seconds, memory in measure(arguments, Path(folder)):
            print(f"| {step} | {seconds:.1f} s | {memory / GIGABYTE:.1f} GB |", flush=True)


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, float, int]]:
    """Yield each step's name, its seconds and the bytes of memory at its peak."""
    shape = ["--backbone", arguments.backbone, "--image-size", arguments.image_size]
    checkpoint, repository = folder / "ram.pth", folder / "models"
    write_vocabulary(folder)
    steps = {"write a checkpoint of noise": "weights are noise"}
    yield from run("make_random_checkpoint.py", steps, *shape, "--tags", NUM_TAGS, checkpoint)
    steps = {
        "make model: load the checkpoint": "exporting",
        "make model: export to ONNX": "checking",
        "make model: compare with PyTorch": "largest logit difference",
        "make model: half-precision graphs": "activations reach",
        "make model: install": "ready to serve",
    }
    yield from run(
        "make_model.py", steps, *shape, "--checkpoint", checkpoint, "--vocabulary", folder,
        "--repository", repository,
    )  # fmt: skip
    start = time.monotonic()
    with TritonServer(repository) as server:
        yield "start tritonserver until ready", time.monotonic() - start, peak_memory(server)
        picture = HERE / "demo" / "images" / "cat.png"
        with RamClient(server.grpc) as client:
            client.tag(picture)  # the first request allocates the engine's buffers
            seconds = [timed_request(client, picture) for _ in range(REQUESTS)]
        step = f"tag an image through gRPC (median of {REQUESTS})"
        yield step, statistics.median(seconds), peak_memory(server)


def write_vocabulary(folder: Path) -> None:
    """Write tag lists of the right length."""
    for name in (ENGLISH, CHINESE):
        lines = (f"{name} {index}\n" for index in range(NUM_TAGS))
        (folder / name).write_text("".join(lines))


def run(script: str, steps: dict[str, str], *arguments: object) -> Iterator[tuple[str, float, int]]:
    """Run one of the build's scripts, whose output tells where a step ends.

    Args:
        script: its file name.
        steps: names of its steps and, for each, what the line says that ends it.
        arguments: of the script.

    Yields:
        A step's name, its seconds, and the peak resident bytes so far.
    """
    command = [sys.executable, "-u", HERE / script, *map(str, arguments)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for step, ending in steps.items():
            if not any(ending in line for line in iter(process.stdout.readline, "")):
                sys.exit(f"{script} failed in the step '{step}'")
            end = time.monotonic()
            yield step, end - start, resident_peak(process.pid)
            start = end


def peak_memory(server: TritonServer) -> int:
    """Sum of the peak resident bytes of the server and its Python models."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        if os.getpgid(int(folder.name)) == server.process_group:
            total += resident_peak(int(folder.name))
    return total


def resident_peak(process: int) -> int:
    """Peak resident bytes of a process that is running."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


def timed_request(client: RamClient, picture: Path) -> float:
    """Seconds that one answer takes."""
    start = time.monotonic()
    client.tag(picture)
    return time.monotonic() - start


def processor() -> str:
    """Name of this machine's processor, as far as the system tells."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
