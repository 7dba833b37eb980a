"""What a training run shows: a bar in a terminal, a line now and then elsewhere; its metrics."""

import time
from collections import deque
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column
from torch.utils.tensorboard import SummaryWriter

LINE_SECONDS = 10.0
BAR_WIDTH = 10  # leaves room for three losses
WINDOW = 50  # steps that the shown loss and speed are taken over


class Progress:
    """Shows loss, images per second and the time left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        whole, cut = Column(no_wrap=True), Column(no_wrap=False)
        self.bar = Bar(
            TimeRemainingColumn(table_column=whole),
            MofNCompleteColumn(table_column=whole),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.description}", table_column=cut),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=WINDOW)
        self.images_per_second = 0.0

    def begin(self, total: int, done: int, batch_size: int) -> None:
        """Show that `done` of `total` steps are done."""
        self.total, self.done, self.batch_size = total, done, batch_size
        self.task = self.bar.add_task("training", total=total, completed=done)
        self.printed_at = time.monotonic()
        self.resume()
        self.bar.start()

    def resume(self) -> None:
        """Count time from here on: what came before was other work than training."""
        self.recent.clear()
        self.recent.append((time.monotonic(), {}))

    def update(self, losses: dict[str, float]) -> None:
        """Show a step, and the means of the losses over the last ones."""
        self.done += 1
        now = time.monotonic()
        self.recent.append((now, losses))
        seconds = now - self.recent[0][0]
        self.images_per_second = (len(self.recent) - 1) * self.batch_size / max(seconds, 1e-9)
        means = " ".join(f"{name} {self._mean(name):.3f}" for name in losses)
        line = f"{means}, {self.images_per_second:.1f} images/s"
        self.bar.update(self.task, completed=self.done, description=line)
        if not self.console.is_terminal and now - self.printed_at >= LINE_SECONDS:
            left = (self.total - self.done) * self.batch_size / self.images_per_second
            self.log(f"step {self.done}/{self.total}: {line}, {left / 60:.0f} min left")
            self.printed_at = now

    def _mean(self, name: str) -> float:
        """Return the mean of a loss over those recent steps that had it."""
        return fmean(losses[name] for _, losses in self.recent if name in losses)

    def log(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(line, markup=False)

    def end(self) -> None:
        """Remove the bar."""
        self.bar.stop()


def open_metrics(folder: Path, step: int) -> SummaryWriter:
    """Return a writer to a folder for TensorBoard, which then shows nothing twice.

    Args:
        folder: where runs that were killed may have left files.
        step: the last one that counts; points that are there beyond it do not.
    """
    # TensorBoard reads the files in the order of their names: the second of their start, and then
    # the machine and the process, whose order is none.
    seconds = [int(file.name.split(".")[3]) for file in folder.glob("events.out.tfevents.*.*")]
    while 0 <= max(seconds, default=0) + 1 - time.time() <= 1:
        time.sleep(0.02)
    return SummaryWriter(str(folder), purge_step=step + 1)
