"""The log never makes the server wait: what cannot be written is dropped and counted."""

import os
import subprocess
import sys
import threading
import time

from ram_triton.server.log import BURST, LineWriter, LogReader, StartLog

FULL = "/dev/full"


def read_all(lines, sinks):
    """Read lines that another process writes, as a server does."""
    script = f"import sys\nfor line in {lines}: print(line)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        reader = LogReader(sinks)
        reader.read(process.stdout)
    return reader


def test_a_full_disk_drops_lines_and_the_reader_goes_on():
    descriptor = os.open(FULL, os.O_WRONLY)
    writer, seen = LineWriter(descriptor), []
    reader = read_all("['I0101 a'] * 20000", [writer, seen.append])
    writer.close()
    assert (writer.dropped, len(seen), reader.dropped) == (20000, 20000, 0)


def test_a_reader_that_is_slow_or_has_gone_is_not_waited_for():
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    for number in range(3000):
        writer(f"{number} {'x' * 100}")
    assert 0 < writer.dropped < 3000
    dropped = writer.dropped
    text = os.read(reading, 2**20).decode()
    assert text.splitlines()[0].startswith("0 x")
    writer("the next")
    assert os.read(reading, 2**20).decode().splitlines()[-2:] == [
        f"ram-triton: {dropped} lines were dropped here",
        "the next",
    ]
    os.close(reading)
    writer("nobody reads this")
    assert writer.dropped == dropped + 1
    writer.close()


def test_a_long_line_for_which_there_is_no_room_is_broken_off_and_the_next_begins_anew():
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    writer("x" * 2**20)
    assert writer.dropped == 1
    os.read(reading, 2**20)
    writer("short")
    assert os.read(reading, 2**20).decode().splitlines()[-1] == "short"
    os.close(reading)
    writer.close()


def test_a_sink_that_fails_does_not_end_the_reading():
    seen = []

    def fail(line):
        raise OSError(28, "No space left on device")

    read_all("range(10)", [fail, seen.append])
    assert len(seen) == 10


def test_lines_that_are_not_tritons_are_limited_and_tritons_own_are_not():
    """A damaged TIFF of 30 KB makes libtiff write 588 KB."""
    seen = []
    lines = "[f'TIFFFetch: {n}' for n in range(20000)] + [f'E1128 {n}' for n in range(2000)]"
    reader = read_all(lines, [seen.append])
    assert sum(line.startswith("E1128") for line in seen) == 2000
    assert BURST <= 22000 - 2000 - reader.dropped < 10000


def test_a_line_without_an_end_does_not_fill_the_memory():
    seen = []
    read_all("['x' * 10**6]", [seen.append])
    assert max(map(len, seen)) <= 16384


def test_a_pipe_without_a_reader_is_refused_as_a_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    try:
        LineWriter.open(tmp_path / "pipe")
    except OSError as error:
        assert error.strerror == "No such device or address"
    else:
        raise AssertionError("opened")


def test_a_starting_servers_log_can_grow_while_it_is_searched():
    log, is_over = StartLog(), threading.Event()

    def grow():
        while not is_over.is_set():
            log('I0101 1 model_lifecycle.cc:1] "loading: other:1"')

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        while not log.missing():
            time.sleep(0.001)
        assert [log.reason() for _ in range(1000)] == [None] * 1000
    finally:
        is_over.set()
        writer.join()
    log("E0101 1 model_lifecycle.cc:1] \"failed to load 'bad' version 1: why\\nwhere\"")
    assert log.reason() == "failed to load 'bad' version 1: why"
    assert log.missing() == {"other"}
