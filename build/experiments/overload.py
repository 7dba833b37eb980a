"""Send more than the server can answer, and report what becomes of it: goodput, refusals, memory.

The capacity is measured in a closed loop, before each load and after it. In between requests arrive
at multiples of it, whether or not the server keeps up, each with a deadline; every answer's scores
are compared with those that the picture had alone. The generator takes its time from the cores that
the server would have: goodput is compared with the capacity of what it leaves.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
from PIL import Image
from ram_triton.arguments import add_repository, not_negative, positive
from ram_triton.bench.preprocessing import encode
from ram_triton.cli import run_module
from ram_triton.errors import LoadError
from ram_triton.processes import PROC, read_numbers, tree
from ram_triton.repository.layout import DEMO_IMAGES
from ram_triton.server import TritonServer
from ram_triton.server_code import sigmoid
from tritonclient.grpc import service_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
DEADLINE = 10.0  # seconds of a request
SIZE = (640, 480)  # pixels of the picture
CLOSED = (8, 16, 32)  # requests at once whose best throughput is the capacity
CORES = len(os.sched_getaffinity(0))
TOLERANCE = 0.02  # of a score: batches round otherwise than an image alone
SETTLED = 2.0  # seconds after the end at which latency has to be normal again
GIVEN_BACK = 5.0  # seconds after the end at which memory is measured
RIGHT, REFUSED = "right", "UNAVAILABLE"

MEBI = 2**20
# What the exit status asks for; the latency of what is accepted is bounded by the configs.
MARKS = {"goodput": 0.85, "told": 0.1, "accepted": 2.0 + 10.0, "memory": 200.0}


class Capacity(NamedTuple):
    """Right answers per second, and the processor seconds per second that asking took."""

    rate: float
    generator: float


@dataclass(frozen=True)
class Overload:
    """What became of the requests of one rate, beside the capacity.

    Attributes:
        factor: of the capacity, at which requests arrived.
        rate: requests per second.
        sent: how many.
        goodput: right answers per second.
        statuses: how many requests ended in each way.
        accepted: seconds until the answer, at the median and the 99th percentile.
        told: seconds until a refusal, at the median and the 99th percentile.
        recovery: seconds after the end from which on a request took at most three times as long as
            before the load.
        memory: MiB that all processes had more than before, at the most and 5 s after the end.
        generator: processor seconds per second that sending took.
        share: the goodput's, of the capacity.
        share_of_left: the goodput's, of the capacity of the cores that the generator left.
    """

    factor: float
    rate: float
    sent: int
    goodput: float
    statuses: dict[str, int]
    accepted: tuple[float, float]
    told: tuple[float, float]
    recovery: float
    memory: tuple[float, float]
    generator: float
    share: float = math.nan
    share_of_left: float = math.nan

    def missed(self) -> list[str]:
        """Return the marks that were not reached."""
        marks = {
            "goodput": self.share_of_left >= MARKS["goodput"],
            "time until a refusal": not self.told[0] > MARKS["told"],
            "latency of what is accepted": self.accepted[1] <= MARKS["accepted"],
            "recovery": self.recovery <= SETTLED,
            "memory": self.memory[0] <= MARKS["memory"],
            "answers": not self.statuses.keys() - {RIGHT, REFUSED},
        }
        return [name for name, is_reached in marks.items() if not is_reached]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    add_repository(parser, "model repository to serve")
    add = parser.add_argument
    rates = "rates, as multiples of the capacity"
    add("--factors", type=not_negative, nargs="+", default=[3.0, 10.0], help=rates)
    add("--seconds", type=positive, default=60, help="seconds per rate")
    add("--calibration", type=positive, default=10, help="seconds per load, for the capacity")
    add("--json", type=Path, help="file for what was measured")


def run(arguments: argparse.Namespace) -> int:
    """Serve, overload, report; 1 if a mark is missed."""
    with TritonServer(arguments.repository) as server:
        found = asyncio.run(Generator(server).overload(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in found], indent=2))
    missed = {f"{result.factor:g} times": result.missed() for result in found}
    for load, marks in missed.items():
        print(f"{load}: " + ("all marks reached" if not marks else f"missed: {', '.join(marks)}"))
    return int(any(missed.values()))


class Generator:
    """Sends one picture, again and again."""

    def __init__(self, server: TritonServer) -> None:
        self._server = server
        with Image.open(DEMO_IMAGES / "apple.png") as picture:
            jpeg = encode(picture.convert("RGB").resize(SIZE), "JPEG", quality=88)
        self._request = raw_request(jpeg, ("logits", "tags", "scores"))
        self._alone: np.ndarray | None = None

    async def overload(self, arguments: argparse.Namespace) -> list[Overload]:
        """Measure the capacity, then each of the rates."""
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(self._server.grpc, options=options) as channel:
            self._call = channel.unary_unary(METHOD)
            alone = [await self._ask() for _ in range(30)]
            if any(status != RIGHT for _, status in alone):
                raise LoadError(f"before any load: {alone[0][1]}")
            normal = statistics.median(seconds for seconds, _ in alone)
            before = await self._capacity(arguments.calibration)
            print(f"capacity {before.rate:.1f}/s, alone {1000 * normal:.0f} ms")
            print(
                "  load  rate/s  right/s  share, of left  accepted p50, p99 s  "
                "refused p50, p99 ms  normal after s  memory MiB, after  generator"
            )
            found = []
            for factor in arguments.factors:
                load = await self._open_loop(factor, before.rate, arguments.seconds, normal)
                after = await self._capacity(arguments.calibration)
                rate, own = ((a + b) / 2 for a, b in zip(before, after, strict=True))
                left = rate * (CORES - load.generator) / (CORES - own)
                result = replace(load, share=load.goodput / rate, share_of_left=load.goodput / left)
                before = after
                found.append(result)
                print(_row(result), flush=True)
        return found

    async def _ask(self) -> tuple[float, str]:
        """Send a request; returns the seconds that it took, and how it ended."""
        began = time.perf_counter()
        try:
            answer = pb.ModelInferResponse.FromString(
                await self._call(self._request, timeout=DEADLINE)
            )
        except grpc.aio.AioRpcError as error:
            return time.perf_counter() - began, error.code().name
        scores = sigmoid(np.frombuffer(answer.raw_output_contents[0], np.float32))
        self._alone = scores if self._alone is None else self._alone
        is_right = np.abs(scores - self._alone).max() <= TOLERANCE
        return time.perf_counter() - began, RIGHT if is_right else "wrong"

    async def _capacity(self, seconds: float) -> Capacity:
        """Return the best throughput of some numbers of users."""
        rates = []
        for users in CLOSED:
            began, own = time.perf_counter(), time.process_time()
            rate = await self._closed_loop(users, seconds)
            own = time.process_time() - own
            rates.append(Capacity(rate, own / (time.perf_counter() - began)))
        return max(rates)

    async def _closed_loop(self, users: int, seconds: float) -> float:
        """Return the right answers per second to a number of users at once."""
        end = time.perf_counter() + seconds
        count = 0

        async def use() -> None:
            nonlocal count
            while time.perf_counter() < end:
                _, status = await self._ask()
                count += status == RIGHT and time.perf_counter() < end

        await asyncio.gather(*(use() for _ in range(users)))
        return count / seconds

    async def _open_loop(
        self, factor: float, capacity: float, seconds: float, normal: float
    ) -> Overload:
        rate = factor * capacity
        memory = before = self._memory()
        results: list[tuple[float, str]] = []
        in_time = 0
        running: set[asyncio.Task[None]] = set()
        began, own = time.perf_counter(), time.process_time()

        async def send() -> None:
            nonlocal in_time
            results.append(await self._ask())
            in_time += results[-1][1] == RIGHT and time.perf_counter() < began + seconds

        sent, looked = 0, began
        while (now := time.perf_counter()) < began + seconds:
            while began + sent / rate <= now:
                task = asyncio.create_task(send())
                running.add(task)
                task.add_done_callback(running.discard)
                sent += 1
            if now - looked > 1:
                looked, memory = now, max(memory, self._memory())
            await asyncio.sleep(max(0.0, began + sent / rate - time.perf_counter()))
        end, own = time.perf_counter(), time.process_time() - own
        recovery = await self._recover(end, 3 * normal)
        while running:
            await asyncio.sleep(0.1)
        await asyncio.sleep(max(0.0, end + GIVEN_BACK - time.perf_counter()))
        return Overload(
            factor=factor,
            rate=rate,
            sent=sent,
            goodput=in_time / seconds,
            statuses=dict(Counter(status for _, status in results)),
            accepted=_percentiles(taken for taken, status in results if status == RIGHT),
            told=_percentiles(taken for taken, status in results if status == REFUSED),
            recovery=recovery,
            memory=(memory - before, self._memory() - before),
            generator=own / seconds,
        )

    async def _recover(self, end: float, limit: float) -> float:
        """Ask one at a time until three in a row are quick; returns when these began."""
        quick: list[float] = []
        while len(quick) < 3 and time.perf_counter() < end + 60:
            began = time.perf_counter() - end
            taken, status = await self._ask()
            quick = [*quick, began] if status == RIGHT and taken <= limit else []
            await asyncio.sleep(0.05)
        return quick[0] if quick else math.inf

    def _memory(self) -> float:
        """Return the anonymous memory of the server's processes, MiB."""
        found = 0
        for process in tree(self._server.process_group):
            with contextlib.suppress(OSError):  # it has just ended
                found += read_numbers(PROC / str(process) / "status").get("RssAnon", 0)
        return found / MEBI


def raw_request(image: bytes, outputs: Iterable[str]) -> bytes:
    """Return a request to `ram` with one encoded image, as it is sent to METHOD."""
    request = pb.ModelInferRequest(model_name="ram")
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(len(image).to_bytes(4, "little") + image)
    for name in outputs:
        request.outputs.add(name=name)
    return request.SerializeToString()


def _percentiles(values: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(values)
    if not ordered:
        return math.nan, math.nan
    return statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]


def _row(result: Overload) -> str:
    told = [1000 * value for value in result.told]
    return (
        f"{result.factor:5g}x {result.rate:7.0f} {result.goodput:8.1f} "
        f"{result.share:6.0%}, {result.share_of_left:7.0%} "
        f"{result.accepted[0]:13.2f}, {result.accepted[1]:.2f} {told[0]:13.0f}, {told[1]:.0f} "
        f"{result.recovery:15.1f} {result.memory[0]:+14.0f}, {result.memory[1]:+.0f} "
        f"{result.generator:13.2f}  {result.statuses}"
    )


if __name__ == "__main__":
    sys.exit(run_module("experiments.overload", sys.modules[__name__]))
