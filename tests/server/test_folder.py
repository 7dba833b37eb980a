"""The temporary folder of a server whose launcher was killed is swept up by the next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ram_triton.processes import is_over
from ram_triton.server.folder import ServerFolder, sweep

ABANDON = """
import subprocess, sys, time
from ram_triton.server.folder import ServerFolder
folder = ServerFolder()
folder.make()
region = f"/dev/shm/{folder.region_prefix}x"
open(region, "w").close()
command = [sys.executable, "-c", "import time; time.sleep(600)", folder.region_prefix]
print(folder.path, region, subprocess.Popen(command, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_what_a_killed_owner_left_is_removed_and_a_living_ones_is_not(temporary):
    own = ServerFolder()
    own.make()
    with subprocess.Popen([sys.executable, "-c", ABANDON], stdout=subprocess.PIPE) as owner:
        folder, region, process = owner.stdout.readline().decode().split()
        sweep(temporary)
        assert own.path.is_dir() and Path(folder).is_dir() and Path(region).exists()
        assert not is_over(int(process))
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        sweep(temporary)
    assert own.path.is_dir()
    assert not Path(folder).exists() and not Path(region).exists()
    assert is_over(int(process))
    own.remove()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_is_being_made_or_is_anothers_is_left_alone(temporary):
    (temporary / "ram-triton-new").mkdir()
    (temporary / "ram-triton-odd").mkdir()
    (temporary / "ram-triton-odd" / "owner.json").write_text("{")
    sweep(temporary)
    assert len(list(temporary.iterdir())) == 2
