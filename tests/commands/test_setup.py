"""What set-up needs of the system: named in one line, with the command that installs it."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ram_triton import check_system

ROOT = Path(__file__).parents[2]


def test_this_machine_has_what_set_up_needs():
    assert check_system.problem() is None
    assert ctypes.CDLL(check_system.find_libpython())


@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_a_python_that_does_not_work_is_told_with_one_that_does(version, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    problem = check_system.problem()
    assert problem.startswith(f"Python 3.11 or 3.12 is needed, this is {version[0]}.{version[1]}")
    assert "apt-get install python3.11" in problem and "make PYTHON=python3.11" in problem


def test_a_missing_libpython_is_told_with_its_package(monkeypatch):
    monkeypatch.setattr(check_system, "find_libpython", lambda: None)
    version = "{}.{}".format(*sys.version_info[:2])
    assert check_system.problem().endswith(f"run 'apt-get install libpython{version}'")


def test_make_alone_prints_each_target_with_a_line():
    output = subprocess.run(
        ["make", "--no-print-directory"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    for target in ("demo", "serve", "model", "test"):
        assert f"  make {target} " in output
    assert all(line.startswith("  make ") for line in output.splitlines())


def test_set_up_is_redone_when_the_pins_change(tmp_path):
    """What make would do, in a copy whose environment is as new as its pins, then older."""
    for name in (
        "Makefile",
        "build/requirements.txt",
        "build/constraints.txt",
        "clients/python/pyproject.toml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()

    def would_install():
        command = ["make", "--dry-run", "setup"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        return "pip install" in done.stdout

    assert not would_install()
    (tmp_path / "build" / "constraints.txt").write_text("numpy==1.26.3\n")
    newer = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "build" / "constraints.txt", (newer, newer))
    os.utime(tmp_path / "build" / "constraints.txt", (newer, newer))
    assert would_install()
