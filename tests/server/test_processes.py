"""Processes as /proc shows them."""

import pytest
from ram_triton.server import processes


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
