"""What a training run shows while it runs."""

import re
from io import StringIO
from types import SimpleNamespace

import pytest
from ram_triton.training import progress as module
from ram_triton.training.progress import WINDOW, Progress
from rich.console import Console

LOSSES = {"tagging": 123.456, "distillation": 0.123, "generation": 4.567}


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def progress():
    shown = Progress(Console(file=StringIO(), force_terminal=False, width=80))
    shown.begin(total=12345, done=1000, batch_size=64)
    return shown


def test_the_time_left_is_whole_in_80_columns_with_three_losses(progress):
    progress.update(LOSSES)
    console = Console(file=StringIO(), width=80)
    console.print(progress.bar.make_tasks_table(progress.bar.tasks))
    lines = console.file.getvalue().splitlines()
    assert re.match(r"(-:--:--|\d+:\d\d:\d\d) +1001/12345 ", lines[0])
    assert "generation" in "".join(lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_speed_leaves_out_the_time_of_validation(progress, clock):
    for _ in range(4):
        clock.seconds += 2
        progress.update(LOSSES)
    clock.seconds += 1000
    progress.resume()
    clock.seconds += 2
    progress.update(LOSSES)
    assert progress.images_per_second == 32


def test_a_shown_loss_is_the_mean_of_the_last_steps(progress):
    for step in range(WINDOW + 10):
        progress.update({"tagging": float(step)} | ({"generation": 5.0} if step % 2 else {}))
    mean = sum(range(10, WINDOW + 10)) / WINDOW
    told = progress.bar.tasks[0].description
    assert f"tagging {mean:.3f} generation 5.000" in told
