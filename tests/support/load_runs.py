"""Runs of the load test, as processes."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

from support import PATIENCE

LOADTEST = Path(__file__).parents[2] / "loadtest"
# The tiny model's scores are tiny too, as are its thresholds. No test is about slow answers.
SETTINGS = ("--threshold", "0.0005", "--tolerance", "0.00001", "--timeout", "60")


def start(server, images, *options, mode="--headless"):
    command = [
        Path(sys.executable).with_name("locust"),
        "--config",
        LOADTEST / "locust.conf",
        "--locustfile",
        LOADTEST / "locustfile.py",
        mode,
        "--only-summary",
        "--host",
        f"http://{server.http}",
        "--grpc-server",
        server.grpc,
        "--metrics-url",
        server.metrics,
        "--images",
        images,
        *SETTINGS,
        *options,
    ]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


def finish_when(process, happened):
    """Interrupt a run that has no end of its own once something has happened."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not happened() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    return finish(process)


def load(server, images, *options):
    return finish(start(server, images, *options))


def rows(path):
    """Return a table of locust's; of one that it is just writing, the rows that are whole."""
    if not path.exists():
        return []
    with path.open() as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def sent(folder):
    """Return what locust's table holds so far: protocol and kind of request."""
    return {(row["Type"], row["Name"]) for row in rows(folder / "requests_stats.csv")}
