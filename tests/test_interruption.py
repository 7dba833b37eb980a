"""Commands that are interrupted before they have begun: one line, no traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "build"
# Takes the place of torch, which takes seconds to import: Ctrl-C comes meanwhile.
INTERRUPTED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("command", ["make model", "make vocabulary", "make text-encoder"])
def test_ctrl_c_while_a_command_imports_is_one_line(command, tmp_path):
    (tmp_path / "torch.py").write_text(INTERRUPTED)
    script = BUILD / f"{command.replace(' ', '_').replace('-', '_')}.py"
    done = subprocess.run(
        [sys.executable, script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stderr == f"{command}: interrupted, run it again\n"
    assert done.returncode == -signal.SIGINT
