"""Set-up: what it needs of the system, what it announces, and what is said if it fails."""

import ast
import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ram_triton import check_system, set_up

ROOT = Path(__file__).parents[2]
SCRIPT = Path("build/ram_triton/set_up.py")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what set-up reads, with an environment that has no pip."""
    for name in ("pyproject.toml", "build/constraints.txt", SCRIPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    return tmp_path


def replace_pip(checkout, script):
    pip = checkout / ".venv" / "bin" / "pip"
    pip.write_text(f"#!/bin/sh\n{script}\n")
    pip.chmod(0o755)


def start(checkout, extra="cpu"):
    command = [sys.executable, checkout / SCRIPT, extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(checkout, script):
    """Run set-up with a shell script in the place of pip."""
    replace_pip(checkout, script)
    with start(checkout) as process:
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture
def patient_pip(checkout):
    """A pip that counts its calls, and ends when `go` was written to; returns the file of calls."""
    os.mkfifo(checkout / "go")
    replace_pip(checkout, "echo >> calls; cat go")
    return checkout / "calls"


def without_progress(text):
    """What set-up says beside the line that comes every 10 seconds."""
    return [line for line in text.splitlines() if not re.match(r"set-up: \d+ s, ", line)]


def test_this_machine_has_what_set_up_needs():
    assert check_system.problem() is None
    assert ctypes.CDLL(check_system.find_libpython())


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 13)])
def test_a_python_that_does_not_work_is_reported_with_one_that_does(version, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(check_system, "_codename", lambda: "bookworm")
    told = "Python 3.11 or 3.12 is needed, this is {}.{}: run '{}"
    install = "apt-get install python3.11 python3.11-venv libpython3.11', then 'make ... PYTHON="
    assert check_system.problem() == told.format(*version, install + "python3.11'")
    monkeypatch.setattr(check_system, "_codename", lambda: "trixie")
    assert "pyenv install 3.12'" in check_system.problem()
    (tmp_path / "python3.12").touch(mode=0o755)
    assert check_system.problem() == told.format(*version, "make ... PYTHON=python3.12'")


def test_any_python_can_read_the_check():
    """So that an old one gets its message and not a SyntaxError."""
    tree = ast.parse(Path(check_system.__file__).read_text())
    new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, new)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    arguments = [one for function in functions for one in function.args.args]
    assert all(function.returns is None for function in functions)
    assert all(one.annotation is None for one in arguments)


def test_a_missing_libpython_is_reported_with_its_package(monkeypatch):
    monkeypatch.setattr(check_system, "find_libpython", lambda: None)
    version = "{}.{}".format(*sys.version_info[:2])
    assert check_system.problem().endswith(f"run 'apt-get install libpython{version}'")


@pytest.mark.parametrize("library", [("glibc", "2.31"), ("", "")])
def test_a_c_library_that_the_server_cannot_use_is_reported(library, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    assert "needs glibc 2.35 or newer" in check_system.problem()


def test_an_extra_brings_what_it_includes_and_nothing_else():
    assert set_up.included("cpu") == ["cpu", "openvino"]
    assert set_up.included("int8") == ["int8", "build", "cpu", "openvino"]
    assert {"train", "load", "int8", "gpu", "build", "cpu"} < set(set_up.included("test"))


def test_the_demo_needs_no_pytorch():
    assert set_up.requirement("torch", "build")
    assert not set_up.requirement("torch", "cpu")


def test_set_up_says_first_what_it_downloads_and_marks_what_is_installed(checkout):
    result = run(checkout, 'echo "$@" > arguments')
    assert (result.returncode, result.stderr) == (0, "")
    (announcement,) = without_progress(result.stdout)
    assert announcement.startswith("set-up: 'cpu' downloads up to ")
    assert " MB, once, and takes " in announcement and " GB in .venv" in announcement
    assert announcement.endswith("pip's log: .venv/set-up.log")
    arguments = (checkout / "arguments").read_text().split()
    assert arguments[-4:] == ["-c", str(checkout / "build" / "constraints.txt"), "-e", ".[cpu]"]
    assert sorted(path.name for path in checkout.glob(".venv/.inst*")) == [
        ".installed-cpu",
        ".installed-openvino",
    ]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("ERROR: No matching distribution found for x (from versions: none)", "pip cannot reach"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("WARNING: SSLError(CERTIFICATE_VERIFY_FAILED)", "the package index has a certificate"),
        ("ReadTimeoutError: Read timed out.", "a download was cut off: run it again, it resumes"),
        ("ERROR: a==1 and b==2 have conflicting dependencies.", "a==1 and b==2 have conflicting"),
        ("", "pip failed"),
    ],
)
def test_what_pip_failed_at_is_one_line_with_the_path_of_its_log(checkout, log, reason):
    result = run(checkout, f'echo "{log}"; exit 1')
    assert result.returncode == 1
    assert result.stderr.startswith(f"set-up: {reason}")
    assert result.stderr.endswith(" (pip's log: .venv/set-up.log)\n")
    assert result.stderr.count("\n") == 1
    assert log in (checkout / ".venv" / "set-up.log").read_text()
    assert list(checkout.glob(".venv/.inst*")) == []


def test_an_interrupted_set_up_is_one_line(checkout):
    result = run(checkout, "kill -INT $PPID; exit 1")
    assert result.returncode == 130
    assert result.stderr == "\nset-up: interrupted, run it again: it resumes\n"


def test_a_set_up_waits_for_another_and_does_not_repeat_it(checkout, patient_pip):
    with start(checkout) as first:
        assert "downloads up to" in first.stdout.readline()
        with start(checkout) as second:
            assert second.stdout.readline() == (
                "set-up: waiting for another set-up of this project to end\n"
            )
            (checkout / "go").write_text("")  # as soon as it is read
            assert (second.wait(), without_progress(second.stdout.read())) == (0, [])
    assert first.returncode == 0
    assert patient_pip.read_text() == "\n"


def test_a_set_up_that_waits_installs_what_the_other_has_not(checkout, patient_pip):
    with start(checkout) as first:
        assert "downloads up to" in first.stdout.readline()
        with start(checkout, extra="http") as second:
            assert "waiting for another" in second.stdout.readline()
            (checkout / "go").write_text("")
            assert "'http' downloads up to" in second.stdout.readline()
            (checkout / "go").write_text("")
    assert (first.returncode, second.returncode) == (0, 0)
    assert (checkout / ".venv" / ".installed-http").exists()


def test_progress_can_be_shown_at_any_moment(monkeypatch):
    progress, shown = set_up.Progress(), []

    def installed():
        if not shown:  # what the other thread would show meanwhile
            shown.append(None)
            shown.append(str(progress))
        return 0

    monkeypatch.setattr(progress, "_installed", installed)
    progress.follow("Installing collected packages: numpy, rich\n")
    assert shown[1].endswith("asking the package index")


def test_progress_counts_what_pip_fetches_and_installs():
    progress = set_up.Progress()
    for line in (
        "Collecting numpy==1.26.4\n",
        "  Downloading numpy-1.26.4-cp311-cp311-linux_x86_64.whl (18.2 MB)\n",
        "Collecting rich==15.0.0\n",
        "  Using cached rich-15.0.0-py3-none-any.whl (500 kB)\n",
    ):
        progress.follow(line)
    assert str(progress).endswith("2 packages, 19 MB, fetching rich-15.0.0")
    progress.follow("Installing collected packages: numpy, rich\n")
    assert str(progress).endswith("2 packages, 19 MB, installing 0 of 2")


def test_set_up_is_redone_when_the_pins_change(tmp_path):
    """What make would do, in a copy whose environment is as new as its pins, then older."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "build").mkdir()
    pins = tmp_path / "build" / "constraints.txt"
    pins.touch()
    (tmp_path / ".venv").mkdir()
    stamp = tmp_path / ".venv" / ".installed-build"
    stamp.touch()

    def would_install():
        command = ["make", "--dry-run", "setup"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        return "set_up.py build" in done.stdout

    assert not would_install()
    newer = stamp.stat().st_mtime + 10
    os.utime(pins, (newer, newer))
    assert would_install()
