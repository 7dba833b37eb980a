"""Measure bulk tagging: its rate beside a closed loop or perf_analyzer, its own cost, kills.

A repository is served, pictures of about 100 kB are put into webdataset shards, and ram-bulk and
the other client take turns at the same number of requests at once. With kills, a run is killed at
random moments until it is done, and its rows are compared with those of an uninterrupted one.
All of them share the machine's cores with the server.

perf_analyzer for Debian 12 is in an old wheel: `pip download --no-deps tritonclient==2.50.0`.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ram_triton.arguments import add_repository, natural, positive
from ram_triton.cli import run_module
from ram_triton.errors import LoadError
from ram_triton.server import TritonServer

from experiments.bulk_kills import go_on_until_done, report_differences
from experiments.bulk_rivals import other_rate
from experiments.bulk_shards import make_shards

INTERVAL = 0.2  # seconds between two looks at a run's memory
TENTHS = 10
MIB = 1 << 20


@dataclass(frozen=True)
class Bulk:
    """A run of ram-bulk.

    Attributes:
        rate: images per second.
        milliseconds: of processor time per image, without what a run without images takes.
        memory: MiB, from the start to the end, at equal intervals.
    """

    rate: float
    milliseconds: float
    memory: list[float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    add_repository(parser, "model repository to serve")
    parser.add_argument("--images", type=positive, default=1000, help="images per run")
    parser.add_argument(
        "--size",
        type=positive,
        nargs=2,
        default=[640, 480],
        metavar=("W", "H"),
        help="of the pictures, in pixels",
    )
    parser.add_argument("--concurrency", type=positive, default=8, help="requests at once")
    parser.add_argument(
        "--trials", type=natural, default=3, help="turns of both clients; 0 compares with the last"
    )
    parser.add_argument(
        "--perf-analyzer", type=Path, help="program to compare with, instead of a closed loop"
    )
    parser.add_argument(
        "--kills", type=natural, default=0, help="kills of a run whose rows are compared"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep what is made there (default: a temporary folder)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 if a run that was killed has other rows than one that was not."""
    if arguments.folder:
        return measure(arguments.folder, arguments)
    with tempfile.TemporaryDirectory(prefix="ram-bulk-") as folder:
        return measure(Path(folder), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> int:
    """The same with a folder for the pictures and the rows."""
    shards = make_shards(folder / "shards", arguments.images, arguments.size)
    output = folder / "uninterrupted"
    with TritonServer(arguments.repository) as server:
        rates, runs = [], []
        for _ in range(arguments.trials):
            rates.append(other_rate(server, shards, folder, arguments))
            shutil.rmtree(output, ignore_errors=True)
            runs.append(tag(command(server, shards, output, arguments.concurrency)))
        if runs:
            report(rates, runs, arguments)
        if not arguments.kills:
            return 0
        rate = runs[-1].rate if runs else other_rate(server, shards, folder, arguments)
        killed = folder / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        line = command(server, shards, killed, arguments.concurrency)
        go_on_until_done(line, arguments.kills, arguments.images / rate)
        return int(not report_differences(output, killed, arguments.repository))


def report(rates: list[float], runs: list[Bulk], arguments: argparse.Namespace) -> None:
    """Print what both clients reached."""
    other = "perf_analyzer" if arguments.perf_analyzer else "closed loop"
    print(f"{arguments.images} images per run, {arguments.concurrency} requests at once")
    print(f"{other}: images/s {_listed(rates)}")
    print(f"ram-bulk: images/s {_listed([run.rate for run in runs])}")
    share = statistics.median(run.rate for run in runs) / statistics.median(rates)
    print(f"ram-bulk's share of {other}'s rate, of the medians: {share:.2f}")
    milliseconds = [run.milliseconds for run in runs]
    print(f"its processor time after its start, ms per image: {_listed(milliseconds)}")
    print(f"its peak memory, MiB: {_listed([max(run.memory) for run in runs])}")
    print(f"its memory in tenths of the last run, MiB: {_listed(in_tenths(runs[-1].memory))}")


def command(server: TritonServer, shards: list[Path], output: Path, concurrency: int) -> list[str]:
    """Return the command line of a run."""
    program = [sys.executable, "-m", "ram_bulk", *map(str, shards)]
    return [*program, "--server", server.grpc, "-o", str(output), f"--concurrency={concurrency}"]


def tag(line: list[str]) -> Bulk:
    """Run ram-bulk to its end, and once more, when nothing is left."""
    memory: list[float] = []
    printed, seconds = _run(line, memory)
    found = re.search(r"([\d,]+) now, in [\d.]+ s: ([\d.]+) images/s", printed)
    if not found:
        raise LoadError(f"ram-bulk: {printed}")
    _, start = _run(line, [])
    images = int(found[1].replace(",", ""))
    return Bulk(float(found[2]), 1000 * (seconds - start) / images, memory)


def _run(line: list[str], memory: list[float]) -> tuple[str, float]:
    """Run a command; return what it printed and its processor time, and list its memory, MiB."""
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            if used := _memory(process.pid):
                memory.append(used)
            time.sleep(INTERVAL)
        _, status, usage = ended
        process.returncode = status
        assert process.stdout is not None
        printed = process.stdout.read()
    if status:
        raise LoadError(f"ram-bulk ended with {status}: {printed}")
    return printed, usage.ru_utime + usage.ru_stime


def _memory(process: int) -> float:
    """Return what a process has in memory, MiB; 0 if it has ended."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB


def in_tenths(values: list[float]) -> list[float]:
    """Return the mean of each tenth; the values themselves if there are no more than ten."""
    if len(values) <= TENTHS:
        return values
    return [float(part.mean()) for part in np.array_split(values, TENTHS)]


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


if __name__ == "__main__":
    sys.exit(run_module("experiments.bulk", sys.modules[__name__]))
