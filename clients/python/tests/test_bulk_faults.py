"""`ram-bulk` when something goes wrong: servers, disks, other runs, wrong inputs, Ctrl-C."""

import os
import signal
import tarfile
import threading
import time

import grpc
import pytest
from ram_client.bulk import servers
from ram_client.bulk.run import Run
from support import PATIENCE
from support.bulk_runs import COMMAND, lines, rows, run, run_here, start
from support.transport_server import TransportServer

IMAGES = 40
SHARD_SIZE = 5
BASE_ARGUMENTS = ("--shard-size", SHARD_SIZE)


@pytest.fixture
def many(tmp_path):
    """Small files; these servers look into none."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number:03}.png").write_bytes(b"picture %d" % number)
    return folder


@pytest.fixture
def bulk(many, tmp_path):
    """Run the command on them, with parts in the folder `out`."""

    def run_it(*arguments, source=many, runner=run_here, **options):
        own = [source, "-o", tmp_path / "out", *BASE_ARGUMENTS]
        return runner(*own, *arguments, **options)

    return run_it


@pytest.fixture
def shard(many, tmp_path):
    """The same in a tar: they are sent in order, while files are read by several threads."""
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as archive:
        for picture in sorted(many.iterdir()):
            archive.add(picture, picture.name)
    return path


def wait_for_a_part(process, tmp_path):
    while not list((tmp_path / "out").glob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)


def keys(tmp_path):
    return [row["key"] for row in rows(tmp_path / "out")]


ALL_KEYS = [f"{number:03}.png" for number in range(IMAGES)]
SAMPLES = [f"{number:03}" for number in range(IMAGES)]  # the keys of a tar


class Picky(TransportServer):
    """Fails for some pictures, refuses some calls by number, and can end itself in the middle."""

    def __init__(self, bad=b"", refuses=(), ends_after=None):
        super().__init__()
        self.bad, self.refuses, self.ends_after = bad, refuses, ends_after
        self.survivor = None  # a server that hangs until this one ends

    def ModelInfer(self, request, context):
        if self.bad and self.bad in request.raw_input_contents[0]:
            context.abort(grpc.StatusCode.INTERNAL, "the process is gone")
        if self.ends_after is not None and self.calls >= self.ends_after:
            threading.Thread(target=self.stop).start()
            if self.survivor:
                self.survivor.answer()
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        with self._counting:
            is_refused = self.calls in self.refuses
            self.calls += is_refused
        if is_refused:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return super().ModelInfer(request, context)


@pytest.fixture
def picky():
    servers = []

    def make(**options):
        servers.append(Picky(**options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_a_full_queue_is_waited_for(bulk, picky, tmp_path):
    server = picky(refuses=range(9, 21))
    done = bulk("--server", server.address)
    assert done.returncode == 0
    assert keys(tmp_path) == ALL_KEYS
    assert server.calls >= IMAGES + 12


def test_one_server_is_dead_and_one_dies(bulk, picky, unreachable, tmp_path):
    dying, living = picky(ends_after=9), picky()
    dying.survivor = living
    living.hang()
    done = bulk("--server", f"{unreachable},{dying.address},{living.address}")
    assert done.returncode == 0
    assert keys(tmp_path) == ALL_KEYS
    assert all(row["error"] is None for row in rows(tmp_path / "out"))
    assert dying.calls >= 9
    assert living.calls >= IMAGES - 9


def test_without_any_server_the_run_ends_and_goes_on_later(bulk, picky, shard, tmp_path):
    gone = picky(ends_after=24)
    done = bulk("--server", gone.address, "--wait", "6", "--concurrency", "2", source=shard)
    assert done.returncode == 1
    waiting, ended, kept = lines(done.stderr)
    assert waiting.startswith("ram-bulk: waiting for a server, up to 6 s (--wait): ")
    assert ended.startswith(f"ram-bulk: no server for 6 s: no server at {gone.address}")
    assert kept.endswith("the same command goes on")
    before = keys(tmp_path)
    assert before == SAMPLES[: len(before)] != []
    done = bulk("--server", picky().address, source=shard)
    assert done.returncode == 0
    assert keys(tmp_path) == SAMPLES


def test_a_picture_that_fails_by_itself_is_a_row(bulk, picky, tmp_path):
    server = picky(bad=b"picture 17")
    done = bulk("--server", server.address)
    assert done.returncode == 0
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == ALL_KEYS
    assert {row["key"]: row["error"] for row in found if row["error"]} == {
        "017.png": "the process is gone"
    }
    assert lines(done.stdout)[1].split() == ["1", "the", "process", "is", "gone"]


def test_a_server_that_fails_for_all_is_not_the_pictures_fault(bulk, picky, tmp_path):
    server = picky(bad=b"P")  # the small picture too
    done = bulk("--server", server.address, "--wait", "1")
    assert done.returncode == 1
    assert "no server for 1 s: the process is gone" in done.stderr
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_server_that_is_silent_is_waited_for(bulk, transport_server, monkeypatch):
    monkeypatch.setattr(servers, "PICTURE_TIMEOUT", 0.2)
    transport_server.hang()
    done = bulk("--server", transport_server.address, "--wait", "1")
    assert done.returncode == 1
    waiting, ended, _ = lines(done.stderr)
    silent = f"{transport_server.address}: no answer within 0.2 s"
    assert waiting == f"ram-bulk: waiting for a server, up to 1 s (--wait): {silent}"
    assert ended == f"ram-bulk: no server for 1 s: {silent}"


def test_that_a_server_is_waited_for_is_told_however_short_that_is(bulk, unreachable):
    done = bulk("--server", unreachable, "--wait", "0.1")
    waiting, ended, _ = lines(done.stderr)
    assert waiting.startswith("ram-bulk: waiting for a server, up to 0.1 s (--wait): ")
    assert ended.startswith("ram-bulk: no server for 0.1 s: ")


@pytest.mark.parametrize("file_format", ["parquet", "webdataset"])
def test_what_is_in_memory_is_counted_out_again(
    transport_server, tmp_path, monkeypatch, file_format
):
    from pyarrow import parquet, table

    parquet.write_table(table({"image": [b"%d" % n for n in range(30)]}), tmp_path / "a.parquet")
    made, run_all = [], Run.run

    async def run_it(self):
        made.append(self)
        await run_all(self)

    monkeypatch.setattr(Run, "run", run_it)
    options = (
        "--server",
        transport_server.address,
        "--format",
        file_format,
        "-o",
        tmp_path / "out",
    )
    assert run_here(tmp_path / "a.parquet", *options).returncode == 0
    assert [each._bytes for each in made] == [0]


def test_ctrl_c_says_how_to_go_on(bulk, transport_server, shard, tmp_path):
    transport_server.answers = 23
    server = ("--server", transport_server.address, "--concurrency", "1")
    with bulk(*server, source=shard, runner=start) as process:
        wait_for_a_part(process, tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    (line,) = lines(errors)
    assert line.startswith("ram-bulk: stopped: ")
    assert line.endswith("out; the same command goes on")
    before = keys(tmp_path)
    assert before == SAMPLES[: len(before)] != []
    assert list((tmp_path / "out" / "_ram_bulk").glob("*.unfinished")) == []


def test_a_second_run_into_the_folder_is_refused(bulk, transport_server, tmp_path):
    transport_server.answers = 3
    with bulk("--server", transport_server.address, runner=start) as first:
        assert transport_server.hanging.wait(timeout=PATIENCE)
        second = bulk("--server", transport_server.address)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert lines(second.stderr) == [f"ram-bulk: {tmp_path}/out: another ram-bulk is writing there"]


def test_another_setup_is_refused(bulk, transport_server, tmp_path):
    server = ("--server", transport_server.address)
    assert bulk(*server, "--threshold", "0.5").returncode == 0
    for options, made in {
        (): "no --threshold",
        ("--threshold", "0.25"): "--threshold 0.25",
    }.items():
        done = bulk(*server, *options)
        assert done.returncode == 1
        assert lines(done.stderr) == [
            f"ram-bulk: {tmp_path}/out was made with --threshold 0.5, not {made}: "
            "use another folder, or --restart"
        ]
    done = bulk(*server, "--threshold", "0.5", tmp_path)
    assert "was made with the sources" in done.stderr
    calls = transport_server.calls
    assert bulk(*server, "--threshold", "0.5").returncode == 0
    assert transport_server.calls == calls, "nothing is left to ask"
    assert bulk(*server, "--restart").returncode == 0
    assert keys(tmp_path) == ALL_KEYS


def test_parts_of_something_else_are_not_removed(bulk, transport_server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000-000000.parquet").write_bytes(b"mine")
    done = bulk("--server", transport_server.address)
    assert done.returncode == 1
    assert "is not this run's: use another folder, or --restart" in done.stderr
    assert (tmp_path / "out" / "part-00000-000000.parquet").read_bytes() == b"mine"


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(bulk, transport_server, tmp_path):
    options = ("--server", transport_server.address, "--format", "webdataset", "--shard-size", "20")
    large = tmp_path / "many" / "030.png"
    large.write_bytes(bytes(150_000))
    little_room = ("prlimit", "--fsize=100000", *COMMAND)
    done = bulk(*options, runner=run, command=little_room)
    assert done.returncode == 1
    problem, kept = lines(done.stderr)
    assert problem.endswith("File too large")
    assert kept == f"ram-bulk: stopped: 20 images are in {tmp_path}/out; the same command goes on"
    done = bulk(*options)
    assert done.returncode == 0
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2


def test_a_shard_that_changed_is_refused(transport_server, tmp_path):
    shard = tmp_path / "a.parquet"
    from pyarrow import parquet, table

    parquet.write_table(table({"image": [b"%d" % n for n in range(30)]}), shard)
    transport_server.answers = 17
    options = (shard, "--server", transport_server.address, "-o", tmp_path / "out", *BASE_ARGUMENTS)
    with start(*options, "--concurrency", "1") as process:
        wait_for_a_part(process, tmp_path)
        process.send_signal(signal.SIGKILL)
    os.utime(shard, (1, 1))
    done = run_here(*options)
    assert done.returncode == 1
    assert f"{shard} has changed since the first run" in lines(done.stderr)[0]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["none.jpg"], 1, "ram-bulk: none.jpg: No such file or directory"),
        (["empty"], 1, "ram-bulk: empty: no images in this folder, and no .tar or .parquet"),
        (["empty.txt"], 1, "ram-bulk: empty.txt: nothing to tag"),
        (["text.parquet"], 1, "ram-bulk: "),
        (["nosuch://bucket/a.tar"], 1, "ram-bulk: nosuch://bucket/a.tar: "),
        (["empty", "--shard-size", "0"], 2, "'0' is not a count from 1"),
        (["empty", "--server", ","], 2, "',' is not HOST:PORT,…"),
        (["empty", "--labels", "empty.txt", "--logits"], 2, "cannot be combined with --embedding"),
        ([], 2, "required: SOURCE"),
    ],
)
def test_wrong_inputs_get_a_line(tmp_path, monkeypatch, arguments, status, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "text.parquet").write_text("no parquet")
    done = run_here(*arguments, "-o", "out")
    assert done.returncode == status
    assert complaint in lines(done.stderr)[-1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(transport_server, tmp_path):
    """Peak memory of a run of many megabytes beside one of few."""
    peaks = []
    for name, count in (("few", 10), ("many", 250)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.png").write_bytes(bytes(1 << 20))
        process = start(
            *(folder, "-o", tmp_path / f"{name}_out", "--server", transport_server.address),
            *("--concurrency", 4, "--format", "webdataset", "--shard-size", 20),
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.stdout.close()
        process.stderr.close()
        assert status == 0
        peaks.append(usage.ru_maxrss / 1024)
    few, many = peaks
    assert many - few < 120, peaks
