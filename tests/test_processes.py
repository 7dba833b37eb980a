"""Processes as /proc shows them."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from ram_triton import processes


@pytest.fixture
def proc(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("letter", "has_ended"),
    [("R", False), ("S", False), ("D", False), ("T", False), ("Z", True), ("X", True)],
)
def test_a_process_is_over_from_its_end_on_while_its_parent_notices_and_after(
    proc, letter, has_ended
):
    (proc / "7").mkdir()
    (proc / "7" / "stat").write_text(f"7 (a) b) {letter} " + " ".join(map(str, range(4, 23))))
    assert processes.state(7) == letter
    assert processes.is_over(7) == has_ended
    assert processes.start_time(7) == (None if has_ended else 22)


def test_a_process_that_is_not_there_is_over(proc):
    assert processes.is_over(7) and processes.start_time(7) is None


def test_a_processes_children_and_what_descends_from_it_are_found_by_their_parents(proc):
    for process, parent in ((7, 1), (8, 7), (9, 8), (10, 7), (11, 2)):
        (proc / f"{process}").mkdir()
        name = "программа".encode()[:15]  # so the kernel cuts it, within a letter
        stat = b"%d (%b) 7) S %d 0 0" % (process, name, parent)
        (proc / f"{process}" / "stat").write_bytes(stat)
    (proc / "12").mkdir()  # it has just ended
    assert sorted(processes.children(7)) == [8, 10]
    assert sorted(processes.tree(7)) == [7, 8, 9, 10]


def test_children_are_found_while_the_threads_that_started_them_end():
    for _ in range(100):
        with ThreadPoolExecutor(4) as threads:
            started = [*threads.map(subprocess.Popen, [["sleep", "60"]] * 4)]
        found = processes.children(os.getpid())
        for child in started:
            child.kill()
            child.wait()
        assert {child.pid for child in started} <= set(found)
