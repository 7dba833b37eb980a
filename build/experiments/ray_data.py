"""Measure Ray Data with a server and with the engine on its workers, and ram-bulk, in turn.

All on this machine: the server has its cores, and so have the workers. The rate of Ray Data is that
from the first rows to the last; what it takes before, while workers start and import, is the other
column.

It needs Ray, as pyproject.toml pins it: `pip install --constraint build/constraints.txt ray[data]`.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import ray
from pyarrow import parquet
from ram_client.concurrency import in_batches
from ram_client.ray import BatchTagger, RamTagger
from ram_triton.arguments import add_repository, positive
from ram_triton.bench.measurement import Measurement, interleave, markdown_table
from ram_triton.cli import run_module
from ram_triton.errors import BenchmarkError
from ram_triton.ray import EngineTagger
from ram_triton.server import TritonServer

from experiments.bulk import add_pictures, command, make_shards, read_images, read_rate

BATCH = 16  # images, of each file too
BLOCK = 2 << 20  # bytes that Ray gives to a worker: its own 128 MiB would be all of a short turn
HEAD = ("way", "images/s", "seconds before the first rows")


@dataclass(frozen=True)
class Turn:
    """What a way took: seconds until its first rows, and images per second after them."""

    start: float
    rate: float


Way = Callable[[Path], Turn]  # tags a folder of parquet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    add_repository(parser, "model repository to serve, and to run")
    add_pictures(parser)
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    cores = os.cpu_count() or 1
    repository = str(arguments.repository.resolve())
    with (
        tempfile.TemporaryDirectory(prefix="ram-ray-") as folder,
        TritonServer(arguments.repository) as server,
    ):
        shards = make_shards(Path(folder, "shards"), arguments.images, arguments.size)
        images = Path(folder, "images")
        images.mkdir()
        for number, contents in enumerate(in_batches(read_images(shards), BATCH)):
            parquet.write_table(pyarrow.table({"image": contents}), images / f"{number:06}.parquet")
        start_ray(cores)
        ways: dict[str, Way] = {
            "ram-bulk, a server": ram_bulk(server),
            f"Ray, {cores} workers, a server": on_ray(RamTagger, cores, server=server.grpc),
            "Ray, one worker with the engine": on_ray(EngineTagger, 1, repository=repository),
            f"Ray, {cores} workers with an engine of one thread": on_ray(
                EngineTagger, cores, repository=repository, threads=1
            ),
        }
        turns: dict[str, list[Turn]] = {way: [] for way in ways}
        for _, way in interleave(list(ways), arguments.rounds, np.random.default_rng(0)):
            turns[way].append(ways[way](images))
        ray.shutdown()
    rows = [
        (
            way,
            Measurement(tuple(turn.rate for turn in turns[way])),
            Measurement(tuple(turn.start for turn in turns[way])),
        )
        for way in ways
    ]
    print(*markdown_table(HEAD, rows), sep="\n")


def start_ray(cores: int) -> None:
    """Start a local cluster: a logical processor per worker, and some for what reads and writes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=cores + 2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK


def ram_bulk(server: TritonServer) -> Way:
    """The command, as a process."""

    def tag(images: Path) -> Turn:
        output = images.with_name("output")
        line = command([str(images), "-o", str(output), "--server", server.grpc])
        begin = time.time()
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
        taken = time.time() - begin
        shutil.rmtree(output)
        _, seconds, rate = read_rate(done.stdout)
        return Turn(taken - seconds, rate)

    return tag


def on_ray(tagger: type[BatchTagger], workers: int, **arguments: Any) -> Way:
    """Ray Data, with a number of workers that start for each turn."""

    class Timed(tagger):  # type: ignore[valid-type, misc]
        def __call__(self, batch: Any) -> pyarrow.Table:
            rows = super().__call__(batch)
            return rows.append_column("at", pyarrow.array([time.time()] * len(rows)))

    def tag(images: Path) -> Turn:
        begin = time.time()
        tagged = ray.data.read_parquet(str(images)).map_batches(
            Timed,
            fn_constructor_kwargs=arguments,
            batch_format="pyarrow",
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        rows = tagged.take_all()
        if any(row["error"] is not None for row in rows):
            raise BenchmarkError("an image failed")
        first, *_, last = sorted(row["at"] for row in rows)
        later = sum(row["at"] > first for row in rows)
        return Turn(first - begin, later / (last - first))

    return tag


if __name__ == "__main__":
    sys.exit(run_module("experiments.ray_data", sys.modules[__name__]))
