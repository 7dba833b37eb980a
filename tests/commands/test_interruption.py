"""Commands that are interrupted or mistyped before they have begun: one line, no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ram_triton.cli import COMMANDS, guarded
from ram_triton.signals import Stopping

ROOT = Path(__file__).parents[2]
# Takes the place of a package that takes long to import: the signal comes meanwhile.
SIGNALLED = "import os, signal\nos.kill(os.getpid(), signal.{})\nimport time\ntime.sleep(60)\n"
# Of files that are there: a wrong path is reported before anything long is imported.
CHECKPOINT = f"--checkpoint={__file__}"
NAMES = ROOT / "build" / "demo" / "vocabulary"
VOCABULARY = f"--vocabulary={NAMES}"
ARGUMENTS = {
    "model": [CHECKPOINT, VOCABULARY],
    "vocabulary": [f"--names={NAMES}", "--output=x", CHECKPOINT, VOCABULARY],
    "text-encoder": ["--checkpoint=.", "--repository=."],
    "verify": [CHECKPOINT, "--repository=."],
    "train": [__file__],
    "evaluate": [__file__],
}


def run(command, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ram_triton", command, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_signal_while_a_command_imports_is_one_line(command, name, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(SIGNALLED.format(name))
    (tmp_path / "config.json").touch()
    (tmp_path / "ram" / "1").mkdir(parents=True)
    (tmp_path / "ram" / "1" / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    done = run(command, *ARGUMENTS[command], PYTHONPATH=str(tmp_path))
    assert done.stderr.startswith(f"ram-triton {command}: interrupted, ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 128 + getattr(signal, name)


def test_a_signal_while_the_program_itself_imports_is_one_line(tmp_path):
    (tmp_path / "argparse.py").write_text(SIGNALLED.format("SIGINT"))
    done = run("model", PYTHONPATH=str(tmp_path))
    assert (done.stderr, done.returncode) == ("ram-triton: interrupted\n", 130)


def test_a_lost_terminal_does_not_end_what_nohup_started():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            signal.raise_signal(signal.SIGHUP)
        assert not stopping.asked.is_set()
        assert guarded("ram-triton", lambda: signal.raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_does_not_exist_is_refused_with_those_that_do():
    done = run("modle")
    assert done.returncode == 2
    assert "invalid choice: 'modle'" in done.stderr and "'model'" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_comes_without_the_slow_imports(command, tmp_path):
    for package in ("torch", "openvino", "transformers", "onnxruntime", "sklearn", "matplotlib"):
        (tmp_path / f"{package}.py").write_text(f"raise SystemExit('{package} is imported')")
    done = run(command, "--help", PYTHONPATH=str(tmp_path), COLUMNS="80")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.startswith(f"usage: ram-triton {command} ")
    assert max(map(len, done.stdout.splitlines())) <= 80
