"""The load test: what it calls right and wrong, and what it makes of a server that is too slow."""

import json
import os
import re
import signal
import time

import psutil
import pytest
from PIL import Image
from support.load_runs import finish, finish_when, load, rows, sent, start

KINDS = {
    "plain",
    "threshold 0.0005",
    "top_k 5",
    "batch, 4 images",
    "open, 20 labels",
    "broken (error expected)",
}
REQUESTS = {("gRPC", kind) for kind in KINDS} | {("HTTP", "plain")}


@pytest.fixture(scope="module")
def images(picture_files, tmp_path_factory):
    """A folder of four pictures that the model tells apart, in three formats and sizes."""
    folder = tmp_path_factory.mktemp("images")
    pictures = [path for path in picture_files if path.suffix == ".png"][:4]
    formats = ("png", "jpg", "webp", "png")
    for path, suffix, side in zip(pictures, formats, (384, 640, 240, 100), strict=True):
        with Image.open(path) as image:
            image.convert("RGB").resize((side, side)).save(folder / f"{path.stem}.{suffix}")
    return folder


@pytest.fixture(scope="module")
def healthy_run(server, images, tmp_path_factory):
    """A run in which nothing is wrong, and the folder with what it wrote.

    It has no time: it is ended as by Ctrl-C when requests of all kinds were drawn.
    """
    folder = tmp_path_factory.mktemp("run")
    process = start(
        server,
        images,
        "--users",
        4,
        "--run-time",
        "0s",
        "--expected",
        folder / "expected.json",
        "--csv",
        folder / "requests",
        "--html",
        folder / "report.html",
        "--plot",
        folder / "latency.png",
    )
    return *finish_when(process, lambda: sent(folder) >= REQUESTS), folder


def test_a_healthy_server_passes_over_both_protocols_with_all_kinds_of_requests(healthy_run):
    status, stdout, stderr, folder = healthy_run
    assert status == 0, stdout + stderr
    assert "kept      failures   0 of " in stdout
    assert not REQUESTS - sent(folder)
    assert rows(folder / "requests_failures.csv") == []
    sizes = [float(row["Average Content Size"]) for row in rows(folder / "requests_stats.csv")]
    assert min(sizes) > 0


def test_a_run_leaves_report_and_plot(healthy_run):
    _, stdout, _, folder = healthy_run
    report = (folder / "report.html").read_text("utf-8")
    assert "Aggregated" in report
    assert "<title>RAM load test: 4 users, closed loop</title>" in report
    assert "Locust Test Report" not in report, "locust's title has changed: see set_title"
    with Image.open(folder / "latency.png") as plot:
        assert len(plot.convert("RGB").getcolors(1 << 24)) > 10, "nothing was plotted"
    assert "metrics not reached" not in stdout


def test_a_limit_that_is_exceeded_is_exit_status_1(server, images, healthy_run, tmp_path):
    """Without the server's metrics, which are not what the run is about."""
    *_, folder = healthy_run
    status, stdout, _ = load(
        server,
        images,
        "--users",
        2,
        "--run-time",
        "3s",
        "--max-p99",
        0.5,
        "--expected",
        folder / "expected.json",
        "--metrics-url",
        "http://127.0.0.1:9/metrics",
        "--plot",
        tmp_path / "latency.png",
    )
    assert status == 1
    assert "load: metrics not reached at http://127.0.0.1:9/metrics: the picture is" in stdout
    assert (tmp_path / "latency.png").exists()
    assert re.search(r"EXCEEDED  p99 +[\d.]+ ms, limit 0.5 ms", stdout)
    assert "kept      failures" in stdout


def test_answers_of_another_image_are_failures_and_no_responses(
    server, images, healthy_run, tmp_path
):
    """Two pictures' expected answers change places: the server's then look swapped."""
    *_, folder = healthy_run
    values = json.loads((folder / "expected.json").read_text())
    first, second = list(values["pictures"])[:2]
    pictures = values["pictures"]
    pictures[first], pictures[second] = pictures[second], pictures[first]
    doctored = tmp_path / "doctored.json"
    doctored.write_text(json.dumps(values))
    process = start(
        server,
        images,
        "--users",
        2,
        "--run-time",
        "0s",
        "--expected",
        doctored,
        "--csv",
        tmp_path / "requests",
    )

    def have_both_failed():
        failures = rows(tmp_path / "requests_failures.csv")
        kinds = {row["Name"] for row in failures}
        return "plain" in kinds and any("swapped" in row["Error"] for row in failures)

    status, stdout, _ = finish_when(process, have_both_failed)
    assert status == 1 and "EXCEEDED  failures" in stdout
    failures = rows(tmp_path / "requests_failures.csv")
    assert all("WrongAnswer" in row["Error"] for row in failures)
    assert any("swapped, this is the answer of" in row["Error"] for row in failures)
    failed = {row["Name"] for row in failures}
    assert "plain" in failed and "broken (error expected)" not in failed


def test_a_server_that_stalls_cannot_hide_in_the_open_loop(server, images, healthy_run, tmp_path):
    """Stopped when the load begins: four users could send four requests, but 120 were due.

    The server's own process alone: if its models' processes stop too, it takes them for dead.
    """
    *_, folder = healthy_run
    process = start(
        server,
        images,
        "--users",
        4,
        "--run-time",
        "6s",
        "--rate",
        20,
        "--expected",
        folder / "expected.json",
        "--csv",
        tmp_path / "requests",
    )
    logged = iter(process.stderr.readline, "")
    try:
        assert any("Ramping to 4 users" in line for line in logged)
        os.kill(server.process_group, signal.SIGSTOP)
        assert any("run-time limit reached" in line for line in logged)
    finally:
        os.kill(server.process_group, signal.SIGCONT)
    status, stdout, _ = finish(process)
    assert status == 1 and "EXCEEDED  failures" in stdout
    stats = rows(tmp_path / "requests_stats.csv")
    (unsent,) = (row for row in stats if "unsent" in row["Name"])
    (total,) = (row for row in stats if row["Name"] == "Aggregated")
    # Those before the signal are answered; the others have waited since they were due.
    waited = float(unsent["Max Response Time"]) / 1000  # a run may end late, and more are due then
    assert 20 < int(unsent["Request Count"]) <= 20 * waited + 2
    assert float(re.search(r"of ([\d.]+) sent", stdout)[1]) <= 20.2
    assert float(total["Median Response Time"]) > 500
    assert float(total["99%"]) > 1500


def test_the_ramp_finds_the_highest_rate_that_keeps_the_limit(server, photo, tmp_path):
    """With pictures that take long to decode: the server can do but a few dozen a second."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        photo.rotate(90 * index).resize((2000, 1500)).save(images / f"{index}.png")
    status, stdout, stderr = load(
        server,
        images,
        "--users",
        20,
        "--ramp",
        "--ramp-from",
        1,
        "--ramp-to",
        1024,
        "--ramp-step",
        1,
        "--ramp-precision",
        0.5,
        "--max-p99",
        4000,
        "--tags",
        "plain",
        "--expected",
        tmp_path / "expected.json",
    )
    assert status == 0, stdout + stderr
    good, bad = map(
        float, re.search(r"knee: ([\d.]+) requests/s keep .*, ([\d.]+) do not", stdout).groups()
    )
    assert 1 <= good < bad <= 1.51 * good
    levels = re.findall(r"^ +([\d.]+) +\d+ +[\d.]+ +([\d.]+) +0(.*)$", stdout, re.M)
    for rate, p99, remark in levels:
        assert (float(p99) <= 4000) == (remark == "") == (float(rate) <= good)


def test_a_rate_that_all_users_are_too_few_for_is_told(server, images, healthy_run):
    *_, folder = healthy_run
    status, stdout, _ = load(
        server,
        images,
        "--users",
        1,
        "--ramp",
        "--ramp-from",
        400,
        "--ramp-to",
        400,
        "--ramp-step",
        1,
        "--max-p99",
        1,
        "--tags",
        "broken",
        "--expected",
        folder / "expected.json",
    )
    assert status == 1
    assert "over the limits, all users were busy: more --users may reach further" in stdout
    assert "no knee: 400 requests/s already exceed" in stdout


def test_an_interrupted_run_says_so_and_fails(server, images, healthy_run):
    *_, folder = healthy_run
    lines = {
        ("--run-time", "60s"): r"^interrupted after \d+ s of --run-time 60 s$",
        ("--ramp", "--max-p99", 60000): r"^interrupted, the knee is not known: ",
    }
    expected = ("--expected", folder / "expected.json")
    processes = [start(server, images, *expected, *options) for options in lines]
    for process in processes:
        assert any("All users spawned" in text for text in iter(process.stderr.readline, ""))
        process.send_signal(signal.SIGINT)
    for process, line in zip(processes, lines.values(), strict=True):
        status, stdout, stderr = finish(process)
        assert status == 1
        assert re.search(line, stdout, re.M), stdout
        assert "KeyboardInterrupt" not in stdout + stderr


@pytest.mark.slow
def test_workers_make_pictures_before_the_clock_starts(server, tmp_path):
    """To make those that are sent by default takes them longer than the run."""
    status, stdout, stderr = load(
        server,
        "",
        "--processes",
        2,
        "--users",
        4,
        "--run-time",
        "4s",
        "--rate",
        10,
        "--min-throughput",
        8,
        "--expected",
        tmp_path / "expected.json",
        "--csv",
        tmp_path / "requests",
    )
    assert status == 0, stdout + stderr
    assert "kept      throughput" in stdout
    (total,) = (row for row in rows(tmp_path / "requests_stats.csv") if row["Name"] == "Aggregated")
    assert 1 < int(total["Request Count"]) <= 42, "not the rate of both workers together"


@pytest.mark.slow
def test_a_run_that_lost_a_worker_fails_and_waits_for_the_others_alone(server, images, healthy_run):
    *_, folder = healthy_run
    process = start(
        server,
        images,
        "--processes",
        2,
        "--users",
        4,
        "--run-time",
        "3s",
        "--rate",
        10,
        "--timeout",
        60,
        "--max-failures",
        1,
        "--expected",
        folder / "expected.json",
    )
    logged = iter(process.stderr.readline, "")
    assert any("Run time limit set" in line for line in logged)
    psutil.Process(process.pid).children()[0].kill()
    assert any("run-time limit reached" in line for line in logged)
    ended = time.monotonic()
    status, stdout, _ = finish(process)
    assert time.monotonic() - ended < 30, "waited for the worker that was gone"
    assert status == 1
    assert "EXCEEDED  workers    1 of 2 lost" in stdout
    assert "kept      failures" in stdout, "nobody sent the other's share"
    assert "Traceback" not in stdout


def test_what_cannot_run_is_told_in_one_line(server, images):
    """They start side by side: each takes seconds to import what it needs."""
    lines = {
        ("--grpc-server", "127.0.0.1:9"): (
            "no server with the model 'ram' answers at '127.0.0.1:9' (gRPC): start one with"
        ),
        ("--images", "/nowhere"): "/nowhere",
        ("--ramp",): "--ramp needs the limit that it looks for: --max-p99 MS",
    }
    processes = [start(server, images, *options) for options in lines]
    for process, line in zip(processes, lines.values(), strict=True):
        status, _, stderr = finish(process)
        assert status == 1
        (told,) = (text for text in stderr.splitlines() if "locust.main: Starting" not in text)
        assert told.startswith("load: ") and line in told
