"""Measure bulk tagging: its rate beside a closed loop or perf_analyzer, its own cost, kills.

A repository is served, pictures of about 100 kB are put into webdataset shards, and ram-bulk and
the other client take turns at the same number of requests at once. With kills, a run is killed at
random moments until it is done, and its rows are compared with those of an uninterrupted one.
All of them share the machine's cores with the server.

perf_analyzer for Debian 12 is in an old wheel: `pip download --no-deps tritonclient==2.50.0`.
"""

import argparse
import asyncio
import base64
import csv
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from pyarrow import parquet
from ram_client.protocol import TAG_OUTPUTS
from ram_triton.arguments import add_repository, natural, positive
from ram_triton.bench.preprocessing import encode
from ram_triton.cli import run_module
from ram_triton.errors import LoadError
from ram_triton.processes import PROC, read_numbers
from ram_triton.repository.layout import VOCABULARY
from ram_triton.server import TritonServer
from ram_triton.server.access import HEADER
from ram_triton.server_code import Vocabulary

from experiments.overload import MEBI, METHOD, raw_request

DISTINCT = 32  # pictures; the others differ from them in a comment only
PER_SHARD = 1000
SEED = 5
INTERVAL = 0.2  # seconds between two looks at a run's memory
TENTHS = 10
SENT_AGAIN = 16  # pictures that the other client sends in turn
MOST = 2000  # requests of it: more say no more of a rate
# perf_analyzer's libraries, of which the server's wheel has copies under other names.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
START = 1.0  # seconds that a run takes before it tags
SMALL_PARTS = "--shard-size=100"  # of the run that is killed: some are done between two kills
# What a picture's neighbours in a batch may change one of its scores by, in bfloat16.
TOLERANCE = 0.02
# What is counted of two outputs' rows.
WRONG = MISPLACED, FAILED, SCORES = ("missing, twice or misplaced", "other errors", "wrong scores")
NEAR = "with other tags near their thresholds"


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
    add_pictures(parser)
    add = parser.add_argument
    add("--concurrency", type=positive, default=8, help="requests at once (%(default)s)")
    add("--trials", type=positive, default=3, help="turns of both clients (%(default)s)")
    add("--perf-analyzer", type=Path, help="program to compare with, instead of a closed loop")
    add("--kills", type=natural, default=0, help="kills of a run whose rows are compared")


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how many pictures there are, and how large."""
    add = parser.add_argument
    add("--images", type=positive, default=1000, help="per run (%(default)s)")
    size = [640, 480]
    add("--size", type=positive, nargs=2, default=size, metavar=("W", "H"), help="in pixels")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 if a run that was killed has other rows than one that was not."""
    with (
        tempfile.TemporaryDirectory(prefix="ram-bulk-") as temporary,
        TritonServer(arguments.repository) as server,
    ):
        folder = Path(temporary)
        shards = make_shards(folder / "shards", arguments.images, arguments.size)
        done, killed = folder / "uninterrupted", folder / "killed"
        sent = list(map(str, shards))
        to = ["--server", server.grpc, f"--concurrency={arguments.concurrency}", "-o"]
        rates, runs = [], []
        for _ in range(arguments.trials):
            rates.append(other_rate(server, shards, folder, arguments))
            shutil.rmtree(done, ignore_errors=True)
            runs.append(tag([*sent, *to, str(done)]))
        report(rates, runs, arguments)
        if not arguments.kills:
            return 0
        line = command([*sent, *to, str(killed), SMALL_PARTS])
        go_on_until_done(line, arguments.kills, arguments.images / runs[-1].rate)
        return int(not report_differences(done, killed, arguments.repository))


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
    parts = np.array_split(runs[-1].memory, min(TENTHS, len(runs[-1].memory)))
    tenths = _listed([float(part.mean()) for part in parts])
    print(f"its memory in tenths of the last run, MiB: {tenths}")


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def make_shards(folder: Path, images: int, size: Sequence[int]) -> list[Path]:
    """Write webdataset shards of JPEGs into a new folder; returns their paths."""
    folder.mkdir()
    shards = [folder / f"{first:07}.tar" for first in range(0, images, PER_SHARD)]
    numbers = iter(range(images))
    pictures = _pictures(size)
    for path in shards:
        with tarfile.open(path, "w") as shard:
            for number in islice(numbers, PER_SHARD):
                picture = pictures[number % DISTINCT]
                comment = b"\xff\xfe\x00\x12" + f"{number:016}".encode()
                member = tarfile.TarInfo(f"{number:07}.jpg")
                member.size = len(picture) + len(comment)
                shard.addfile(member, io.BytesIO(picture[:2] + comment + picture[2:]))
    kilobytes = statistics.mean(map(len, pictures)) / 1000
    print(f"{images} pictures, {size[0]} x {size[1]} pixels, {kilobytes:.3g} kB on average")
    return shards


def _pictures(size: Sequence[int]) -> list[bytes]:
    """JPEGs of smooth colours and noise, about as large as photographs of their size."""
    generator = np.random.default_rng(SEED)
    found = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC), np.int16)
        noise = generator.integers(-14, 15, smooth.shape)
        picture = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
        found.append(encode(picture, "JPEG", quality=88))
    return found


def read_images(shards: Sequence[Path]) -> Iterator[bytes]:
    """Yield the encoded images of shards, in order."""
    for path in shards:
        with tarfile.open(path) as shard:
            for member in shard:
                if file := shard.extractfile(member):
                    yield file.read()


def command(arguments: list[str]) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "ram_bulk", *arguments]


def read_rate(printed: str) -> tuple[int, float, float]:
    """Return how many images a run tagged, in how many seconds, and how many per second.

    Raises:
        LoadError: it printed something else.
    """
    found = re.search(r"([\d,]+) now, in ([\d.]+) s: ([\d.]+) images/s", printed)
    if not found:
        raise LoadError(f"ram-bulk: {printed}")
    return int(found[1].replace(",", "")), float(found[2]), float(found[3])


def tag(arguments: list[str]) -> Bulk:
    """Run ram-bulk to its end, and once more, when nothing is left."""
    memory: list[float] = []
    printed, seconds = _run(arguments, memory)
    images, _, rate = read_rate(printed)
    _, start = _run(arguments, [])
    return Bulk(rate, 1000 * (seconds - start) / images, memory)


def _run(arguments: list[str], memory: list[float]) -> tuple[str, float]:
    """Run it; return what it printed and its processor time, and list its memory, MiB."""
    with subprocess.Popen(command(arguments), stdout=subprocess.PIPE, text=True) as process:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            if used := read_numbers(PROC / str(process.pid) / "status").get("VmRSS"):
                memory.append(used / MEBI)
            time.sleep(INTERVAL)
        _, status, usage = ended
        process.returncode = status
        assert process.stdout is not None
        printed = process.stdout.read()
    if status:
        raise LoadError(f"ram-bulk ended with {status}: {printed}")
    return printed, usage.ru_utime + usage.ru_stime


def other_rate(
    server: TritonServer, shards: list[Path], folder: Path, arguments: argparse.Namespace
) -> float:
    """Images per second that the other client reaches with the same images.

    folder: for files of perf_analyzer's.
    """
    count = min(arguments.images, MOST)
    images = list(islice(read_images(shards), SENT_AGAIN))
    if not arguments.perf_analyzer:
        return asyncio.run(closed_loop(server.grpc, images, count, arguments.concurrency))
    libraries = next(Path(sys.prefix).glob("lib/python3*/site-packages/nvidia_pytriton.libs"))
    for name, pattern in LIBRARIES.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(next(libraries.glob(pattern)))
    data = [
        {"image": {"b64": base64.b64encode(len(i).to_bytes(4, "little") + i).decode()}}
        for i in images
    ]
    (folder / "images.json").write_text(json.dumps({"data": data}))
    figures = folder / "perf_analyzer.csv"
    figures.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(arguments.perf_analyzer.resolve(), "-m", "ram", "-u", server.grpc, "-i", "grpc"),
            *("--concurrency-range", str(arguments.concurrency)),
            *("--input-data", folder / "images.json", "-f", figures),
            *("--request-count", str(count)),
            *("-H", f"triton-grpc-protocol-{HEADER}:{server.key}"),
        ],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not figures.exists():
        raise LoadError(f"perf_analyzer: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    with figures.open(newline="") as lines:
        return float(next(csv.DictReader(lines))["Inferences/Second"])


async def closed_loop(address: str, images: list[bytes], count: int, concurrency: int) -> float:
    """Images per second of requests that were made before, and whose answers nobody reads."""
    requests = [raw_request(image, TAG_OUTPUTS) for image in images]
    left = iter(range(count))
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)

        async def use() -> None:
            for number in left:
                await call(requests[number % len(requests)])

        await call(requests[0])
        began = time.perf_counter()
        await asyncio.gather(*(use() for _ in range(concurrency)))
    return count / (time.perf_counter() - began)


def go_on_until_done(line: list[str], kills: int, seconds: float) -> None:
    """Start a run again and again, killed at random moments, and at last let it end.

    Args:
        line: its command line.
        kills: how many times.
        seconds: that it takes if it is not killed; the moments are spread over all of it.
    """
    chance = random.Random(SEED)
    met = 0
    for _ in range(kills):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=START + chance.uniform(0, 2 * seconds / kills))
        except subprocess.TimeoutExpired:
            met += 1
        process.kill()
        process.wait()
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    print(f"killed {met} times, then: {done.stdout.splitlines()[0]}")


def report_differences(before: Path, after: Path, repository: Path) -> bool:
    """Compare two outputs row by row, and print what differs; whether nothing does that should not.

    A tag may be in one of them only if its score is within TOLERANCE of its threshold: the same
    picture was in batches with others.
    """
    thresholds = Vocabulary.load(repository / VOCABULARY).thresholds
    found = Counter(dict.fromkeys(("rows", *WRONG, NEAR), 0))
    largest = 0.0
    for wanted, row in zip_longest(_rows(before), _rows(after)):
        found["rows"] += 1
        if wanted is None or row is None or wanted["key"] != row["key"]:
            found[MISPLACED] += 1
            continue
        found[FAILED] += wanted["error"] != row["error"]
        scores, others = (
            dict(zip(each["ids"] or (), each["scores"] or (), strict=True))
            for each in (wanted, row)
        )
        found[NEAR] += scores.keys() != others.keys()
        for tag in scores.keys() | others.keys():
            threshold = float(thresholds[tag])
            difference = abs(scores.get(tag, threshold) - others.get(tag, threshold))
            largest = max(largest, difference)
            found[SCORES] += difference > TOLERANCE
    print(", ".join(f"{count} {name}" for name, count in found.items()))
    print(f"largest difference of a score: {largest:.3g}")
    return not any(found[name] for name in WRONG)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.parquet")):
        columns = ["key", "ids", "scores", "error"]
        # Not read_table: its threads abort the process at its end, now and then (pyarrow 25.0).
        yield from parquet.ParquetFile(path).read(columns).to_pylist()


if __name__ == "__main__":
    sys.exit(run_module("experiments.bulk", sys.modules[__name__]))
