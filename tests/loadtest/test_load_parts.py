"""The load test's parts: pictures, when requests are due, the knee, options, the report."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, islice
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from ram_client import Tag
from ram_triton.errors import LoadError

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")  # locust would replace this process's sockets
    from locust.env import Environment
    from ram_load.distributed import Session
    from ram_load.open_loop import KneeSearch, due_times
    from ram_load.options import add_options, describe, find_problem, metrics_url
    from ram_load.report import INTERVAL, QUEUE, Counts, Sample, Timeline, draw, judge, set_title
    from ram_load.traffic import make_broken, make_mixed, read_folder
    from ram_load.transports import count_bytes


def test_pictures_are_made_of_mixed_sizes_and_formats_and_broken_ones_are_none(tmp_path, photo):
    for index in range(2):
        photo.rotate(180 * index).save(tmp_path / f"{index}.png")
    pictures = make_mixed(tmp_path)
    assert {Path(picture.name).suffix for picture in pictures} == {".jpg", ".png", ".webp"}
    assert len({picture.sha256 for picture in pictures}) == len(pictures) == 8
    broken = make_broken(pictures)
    assert {picture.sha256 for picture in broken}.isdisjoint(p.sha256 for p in pictures)
    assert len(read_folder(tmp_path)) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match="--images takes a folder of images"):
        read_folder(tmp_path / "empty")


def test_the_size_of_an_answer_is_that_of_its_tensors():
    assert count_bytes([[], []]) == 8
    row = [Tag("dog", "狗", 0.5, 7)]
    assert count_bytes([row]) == 4 + (4 + 3) + (4 + 3) + 4 + 4


def test_arrivals_come_at_their_rate_step_by_step_whoever_sends_them():
    alone = list(islice(due_times([10, 20], 1.0, start=100.0), 30))
    np.testing.assert_allclose(alone[:11], 100 + np.arange(11) / 10)
    np.testing.assert_allclose(np.diff(alone[10:]), 1 / 20)
    shares = [list(islice(due_times([10, 20], 1.0, 100.0, (n, 3)), 10)) for n in range(3)]
    assert sorted(chain(*shares)) == pytest.approx(alone)


@pytest.mark.parametrize("knee", [1.5, 7, 90, 1000])
def test_the_search_encloses_the_knee(knee):
    search = KneeSearch(start=1, maximum=500, precision=0.1)
    while rate := search.next_rate():
        search.record(rate, rate <= knee)
    assert search.good == (500 if knee > 500 else pytest.approx(knee, rel=0.1))
    assert search.good <= knee
    assert search.bad is None or knee < search.bad <= 1.1 * search.good


def test_a_run_without_any_request_keeps_no_limit():
    assert not any(kept for kept, _ in judge(parse("--max-p99 9 --min-throughput 1"), Counts(), 0))


def test_latencies_are_kept_in_four_digits():
    """Locust keeps two: 104.9 ms would pass for 100."""
    environment = Environment()
    environment.create_local_runner()
    session = Session(environment)
    for _ in range(10):
        session.count("gRPC", "plain", 0.10494, 0, None)
    environment.runner.quit()
    assert session.counts().percentile(0.99) == 104.9


class Parser(ArgumentParser):
    """Takes what locust's own parser takes."""

    def add_argument(self, *names, include_in_web_ui=True, **keywords):
        return super().add_argument(*names, **keywords)

    def error(self, message):
        raise ArgumentTypeError(message)


def parse(options):
    parser = Parser()
    add_options(parser)
    return parser.parse_args(options.split())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--max-failures 5", "'5' is not a share between 0 and 1: 0.05 is 5 %"),
        ("--max-failures=-1", "'-1' is not a number of at least 0"),
        ("--max-p99=-1", "'-1' is not a number of at least 0"),
        ("--max-p99 nan", "'nan' is not a number of at least 0"),
        ("--min-throughput=-1", "'-1' is not a number of at least 0"),
        ("--tolerance=-1", "'-1' is not a number of at least 0"),
        ("--timeout 0", "'0' is not a number above 0"),
        ("--top-k 0", "'0' is not a whole number of at least 1"),
        ("--labels 0.5", "'0.5' is not a whole number of at least 0"),
        ("--batch 64", "'64' is not between 2 and 32, the server's largest"),
        ("--threshold 2", "'2' is not a share between 0 and 1: 0.05 is 5 %"),
        ("--rate 10,0", "'0' is not a number above 0"),
        ("--grpc-server localhost", "'localhost' is not HOST:PORT"),
        ("--grpc-server localhost:http", "'http' is not a port: 1 to 65535"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_here_and_on_the_page(options, line):
    flag, value = options.replace("=", " ").split()
    with pytest.raises(ArgumentTypeError, match=f"^argument {flag}: {line}$"):
        parse(options)
    from_page = parse("")
    setattr(from_page, flag[2:].replace("-", "_"), value)
    assert find_problem(from_page) == f"{flag}: {line}"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--ramp", "--ramp needs the limit that it looks for: --max-p99 MS"),
        (
            "--ramp --max-p99 9 --min-throughput 1",
            "--ramp judges rates by --max-p99 and --max-failures: leave out --min-throughput",
        ),
        ("--ramp --max-p99 9 --rate 5", "--ramp chooses the rates itself: leave out --rate"),
        (
            "--ramp --max-p99 9 --ramp-from 9 --ramp-to 8",
            "--ramp-from must not exceed --ramp-to, and --ramp-precision must be below 1",
        ),
        ("--ramp --max-p99 9", None),
        ("--max-failures 0.05 --max-p99 500 --batch 32 --labels 0 --rate 1,2.5", None),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, line):
    assert find_problem(parse(options)) == line


@pytest.mark.parametrize(
    ("host", "options", "url"),
    [
        ("http://127.0.0.1:28000", "", "http://127.0.0.1:28002/metrics"),
        ("server:8000", "", "http://server:8002/metrics"),
        ("http://server", "", "http://server:8002/metrics"),
        ("http://server:8000", "--metrics-url http://other/m", "http://other/m"),
    ],
)
def test_the_address_of_the_metrics_follows_from_that_of_http(host, options, url):
    options = parse(options)
    options.host = host
    assert metrics_url(options) == url


def samples(*queues):
    counts = Counts(10, 1, {12.3: 10})
    return [Sample(time + 1.0, 1.0, counts, queue) for time, queue in enumerate(queues)]


class SlowMetrics(BaseHTTPRequestHandler):
    """Those of a server that is busy when a test begins."""

    def do_GET(self):
        time.sleep(1.2 * INTERVAL)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{QUEUE}{{model="ram",version="1"}} 5\n'.encode())

    def log_message(self, *_):
        pass


def test_metrics_that_are_slow_to_come_at_first_are_waited_for(capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowMetrics) as server:
        Thread(target=server.serve_forever).start()
        Timeline(Counts, f"http://127.0.0.1:{server.server_port}/metrics").stop()
        server.shutdown()
    assert "metrics not reached" not in capsys.readouterr().out


def test_the_picture_names_the_models_that_wait_and_has_no_empty_panel(tmp_path):
    waits = {"ram_encoder": 20.0, "ram_preprocess": 3.0, "ram": 0.0, "ram_open": 0.01}
    draw(samples(waits, waits), tmp_path / "queues.png", "8 users", max_p99=20)
    draw(samples({}, {}), tmp_path / "none.png", "8 users", max_p99=0)
    with Image.open(tmp_path / "queues.png") as queues, Image.open(tmp_path / "none.png") as none:
        assert none.height < 0.8 * queues.height


def test_the_report_gets_the_title_of_the_load(tmp_path):
    path = tmp_path / "report.html"
    path.write_text('<title>Locust</title>children:"Locust Test Report"')
    options = parse("--rate 10,20")
    options.num_users = 8
    set_title(path, f"RAM load test: {describe(options)}")
    title = "RAM load test: 8 users, 10, 20 requests/s"
    assert path.read_text() == f'<title>{title}</title>children:"{title}"'
