"""Serve for a long time at half the capacity, break things now and then, and report what drifts.

Requests to `ram` and `ram_open`, some of them broken; every few minutes a process of a model is
killed, and the supervisor brings it back. Each answer is compared with the first of its picture.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, quantiles

from ram_client import RamClient, RamError
from ram_triton.arguments import add_repository, not_negative
from ram_triton.cli import run_module
from ram_triton.errors import ServerError
from ram_triton.files import short
from ram_triton.processes import PROC, children, command_line, read_numbers, stubs, tree
from ram_triton.repository.layout import DEMO_IMAGES, PROJECT
from ram_triton.server import LOOPBACK, Ports

RUNS = PROJECT / "runs" / "soak"
SAMPLES = 60  # of memory and the like, over the whole time
DEADLINE = 30.0  # seconds of a request
AT_ONCE = 32  # requests
AFTER_KILL = 15.0  # seconds in which requests may fail
CALIBRATION = 10.0  # seconds
BROKEN, OPEN = 0.05, 0.3  # shares of the requests
SEED = 1
MEBI = 2**20


@dataclass(frozen=True)
class Sample:
    """What the server's processes hold at a moment: MiB, and counts."""

    minutes: float
    memory: float
    shared: float
    descriptors: int
    threads: int


@dataclass
class Record:
    """What became of the requests: (second, seconds taken, status) of each."""

    answers: list[tuple[float, float, str]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def unexpected(self) -> Counter[str]:
        """Return how requests failed that no kill explains."""
        return Counter(
            status
            for second, taken, status in self.answers
            if status != "right"
            and (
                status == "wrong"
                or not any(k - taken <= second < k + AFTER_KILL for k in self.kills)
            )
        )

    def latency(self, begin: float, end: float) -> str:
        """Return the median and the 99th percentile of right answers, in milliseconds."""
        taken = [1000 * t for second, t, status in self.answers if begin <= second < end]
        if len(taken) < 2:
            return "-"
        cuts = quantiles(taken, n=100)
        return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")
    add = parser.add_argument
    add("--minutes", type=not_negative, default=30.0, help="how long (default: %(default)g)")
    add("--rate", type=not_negative, help="requests/s (default: half of what it answers)")
    add("--kill-every", type=not_negative, default=5.0, metavar="MINUTES", help="default: 5")


def run(arguments: argparse.Namespace) -> int:
    """Soak, report; returns 1 if an answer was wrong or failed without a reason."""
    ports = Ports.free()
    with (
        serving(arguments.repository, ports) as supervisor,
        RamClient(f"{LOOPBACK}:{ports.grpc}", timeout=DEADLINE, retries=0) as client,
    ):
        traffic = Traffic(client)
        rate = arguments.rate or traffic.capacity() / 2
        print(f"{rate:.1f} requests/s for {arguments.minutes:g} minutes", flush=True)
        record = soak(traffic, rate, arguments.minutes * 60, arguments.kill_every * 60, supervisor)
        with urllib.request.urlopen(f"http://{LOOPBACK}:{ports.health}/health/live") as answer:
            state = json.load(answer)
    report(record, state)
    return 1 if record.unexpected() else 0


@contextlib.contextmanager
def serving(repository: Path, ports: Ports) -> Iterator[int]:
    """Run `ram-triton serve` until the end; yields its process id."""
    RUNS.mkdir(parents=True, exist_ok=True)
    options = [f"--{kind}-port={number}" for kind, number in vars(ports).items()]
    options += ["--log", str(RUNS / "triton.log"), "--repository", str(repository)]
    with (RUNS / "serve.log").open("w") as log:
        command = [sys.executable, "-m", "ram_triton", "serve", *options]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not is_ready(ports):
            if process.poll() is not None:
                raise ServerError(f"the server did not start: see {short(RUNS / 'serve.log')}")
            time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def is_ready(ports: Ports) -> bool:
    """Whether the supervisor reports that the service is whole."""
    try:
        urllib.request.urlopen(f"http://{LOOPBACK}:{ports.health}/health/ready", timeout=5).close()
    except (OSError, http.client.HTTPException):
        return False
    return True


class Traffic:
    """Requests of all kinds, one after the other, and the answers that they should get."""

    def __init__(self, client: RamClient) -> None:
        """Tag each picture once, to know its answer."""
        self._client, self._chance = client, random.Random(SEED)
        self._images = [path.read_bytes() for path in sorted(DEMO_IMAGES.glob("*.png"))]
        self._labels = [tag.name for tag in client.tag(self._images[0], threshold=0)[:3]]
        self._expected = {
            (index, is_open): self._tag(index, is_open)
            for index in range(len(self._images))
            for is_open in (False, True)
        }

    def capacity(self) -> float:
        """Return the requests per second that it answers, eight at once."""
        end = time.monotonic() + CALIBRATION

        def ask(_: int) -> int:
            count = 0
            while time.monotonic() < end:
                self._tag(count % len(self._images), count % 2 == 1)
                count += 1
            return count

        with ThreadPoolExecutor(8) as threads:
            return sum(threads.map(ask, range(8))) / CALIBRATION

    def send(self) -> str:
        """Send the next request; returns right, wrong, or how it failed."""
        is_broken, is_open = self._chance.random() < BROKEN, self._chance.random() < OPEN
        index = self._chance.randrange(len(self._images))
        try:
            if is_broken:
                image = self._images[index]
                self._client.tag(image[: self._chance.randrange(len(image) // 2)])
                return "wrong"
            is_right = self._tag(index, is_open) == self._expected[index, is_open]
            return "right" if is_right else "wrong"
        except RamError as error:
            return "right" if is_broken else type(error).__name__

    def _tag(self, index: int, is_open: bool) -> list[str]:
        options = {"labels": self._labels, "threshold": 0} if is_open else {}
        return [tag.name for tag in self._client.tag(self._images[index], **options)]


def soak(
    traffic: Traffic, rate: float, seconds: float, kill_every: float, supervisor: int
) -> Record:
    """Send requests at a rate, kill processes, and take samples."""
    record, begin = Record(), time.monotonic()
    models = itertools.cycle(sorted({stub.model for stub in stubs(server_of(supervisor))}))
    next_kill, next_sample = kill_every or seconds + 1, 0.0

    def send() -> None:
        start = time.monotonic()
        status = traffic.send()
        record.answers.append((start - begin, time.monotonic() - start, status))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number in itertools.count():
            now = time.monotonic() - begin
            if now >= seconds:
                break
            if now >= next_sample:
                with contextlib.suppress(ServerError):  # it is just started again
                    record.samples.append(sample(supervisor, now))
                next_sample += seconds / SAMPLES
            if now >= next_kill:
                model = next(models)
                victim = next((s for s in stubs(server_of(supervisor)) if s.model == model), None)
                if victim is not None:
                    record.kills.append(now)
                    os.kill(victim.id, signal.SIGKILL)
                next_kill += kill_every
            threads.submit(send)
            time.sleep(max(0.0, (number + 1) / rate - (time.monotonic() - begin)))
    record.samples.append(sample(supervisor, time.monotonic() - begin))
    return record


def server_of(supervisor: int) -> int:
    """Return the process id of a supervisor's tritonserver."""
    for child in children(supervisor):
        if command_line(child)[0].endswith(b"tritonserver"):
            return child
    raise ServerError(f"there is no tritonserver: see {short(RUNS / 'serve.log')}")


def sample(supervisor: int, now: float) -> Sample:
    """Measure all of the server's processes."""
    server = server_of(supervisor)
    memory = descriptors = threads = 0
    for process in tree(server):
        folder = PROC / str(process)
        with contextlib.suppress(OSError):  # it has just ended
            numbers = read_numbers(folder / "status")
            descriptors += len(list((folder / "fd").iterdir()))
            memory += numbers.get("RssAnon", 0)
            threads += numbers["Threads"]
    shared = sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").glob("ram-triton-*"))
    return Sample(now / 60, memory / MEBI, shared / MEBI, descriptors, threads)


def report(record: Record, state: dict[str, object]) -> None:
    """Print what drifted, and what failed."""
    total = record.answers[-1][0]
    print(f"{len(record.answers):,} requests: {dict(Counter(s for *_, s in record.answers))}")
    print(f"killed: {len(record.kills)}; the supervisor: {state}")
    print(f"without a kill before it: {dict(record.unexpected()) or 'all right'}")
    print(f"first third: {record.latency(0, total / 3)}")
    print(f"last third: {record.latency(2 * total / 3, total + 1)}")
    kept = record.samples[len(record.samples) // 5 :]  # until then it warms up
    for name in ("memory", "shared", "descriptors", "threads"):
        values = [getattr(each, name) for each in kept]
        slope = linear_regression([each.minutes for each in kept], values).slope * 60
        print(f"{name}: {values[0]:,.0f} to {values[-1]:,.0f}, {slope:+,.1f} per hour")


if __name__ == "__main__":
    sys.exit(run_module("experiments.soak", sys.modules[__name__]))
