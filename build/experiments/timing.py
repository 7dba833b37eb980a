"""How long runs take on a device: warmed up, repeated, by turns."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch
from ram_triton.bench.figure import Figure

Run = Callable[[], object]
# Runs something so many times; returns the seconds that all of it took on the device.
Clock = Callable[[Run, int], float]

FEWEST_WARM_UPS = 3  # the first runs allocate, choose kernels, or compile some


def processor_clock(run: Run, times: int) -> float:
    """Time what the processor computes."""
    start = perf_counter()
    for _ in range(times):
        run()
    return perf_counter() - start


def gpu_clock(run: Run, times: int) -> float:
    """Time what is queued on PyTorch's current stream, from the GPU's start to its end of it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()  # what was queued before is not counted
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000  # it tells milliseconds


def measure(
    ways: Mapping[str, Run], clock: Clock, repeats: int, turn: float, warm_up: float
) -> dict[str, Figure]:
    """Time several ways to do the same, by turns: whatever slows the device slows all of them.

    Args:
        ways: what to run, by name.
        clock: of the device that they run on.
        repeats: turns of each that are counted.
        turn: seconds of a turn; at least one run.
        warm_up: seconds that each runs before, not counted.

    Returns:
        The milliseconds of one run of each way, a value for each turn.
    """
    times = {
        name: max(1, round(turn / _warm_up(run, clock, warm_up))) for name, run in ways.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            taken[name].append(1000 * clock(run, times[name]) / times[name])
    return {name: Figure(tuple(values)) for name, values in taken.items()}


def _warm_up(run: Run, clock: Clock, seconds: float) -> float:
    """Run for some time; returns how long one run takes then, in seconds."""
    end = perf_counter() + seconds
    taken: list[float] = []
    while len(taken) < FEWEST_WARM_UPS or perf_counter() < end:
        taken.append(clock(run, 1))
    return max(median(taken), 1e-9)
