"""A server's temporary folder, which names its shared memory; swept up if its owner was killed."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

from ram_triton.processes import kill_all_with, start_time
from ram_triton.signals import SIGNALS

PREFIX = "ram-triton-"
VARIABLE = "RAM_SERVER_FOLDER"  # by which the Python models find it
OWNER = "owner.json"
SHARED_MEMORY = Path("/dev/shm")
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")  # what the Python backend's stub takes as a path


class ServerFolder:
    """A temporary folder of one start of a server, which `make` makes.

    Attributes:
        path: the folder.
        region_prefix: what the names of its shared memory in /dev/shm begin with, and what the
            command lines of its processes contain: two servers, or one that was killed and its
            successor, must not share memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Choose a name, or take that of a folder that is there.

        Nothing is made yet: whoever is interrupted while it is can already remove it.
        """
        self.path = path or _base() / f"{PREFIX}{secrets.token_hex(4)}"
        self.region_prefix = f"{self.path.name}-"

    def make(self) -> None:
        """Make the folder, after sweeping up what killed owners left."""
        sweep(self.path.parent)
        self.path.mkdir(mode=0o700)
        owner = {"process": os.getpid(), "started": start_time(os.getpid())}
        unfinished = self.path / f".{OWNER}"
        unfinished.write_text(json.dumps(owner))
        unfinished.rename(self.path / OWNER)

    def plain(self, path: Path) -> Path:
        """Return a path that the Python backend takes: the same, or a link to it in the folder.

        The backend's stub is started by a shell: a space or a quote in its arguments makes it die.
        """
        if PLAIN_PATH.fullmatch(str(path)):
            return path
        link = self.path / "models"
        link.symlink_to(path)
        return link

    @property
    def regions(self) -> list[Path]:
        """The shared memory that is there now."""
        return sorted(SHARED_MEMORY.glob(f"{self.region_prefix}*"))

    def remove(self) -> None:
        """Kill what still runs in it, and remove the folder and the shared memory."""
        kill_all_with(self.region_prefix)
        for region in self.regions:
            region.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(base: Path) -> None:
    """Remove the folders, the shared memory and the processes of servers whose owner is dead."""
    for file in base.glob(f"{PREFIX}*/{OWNER}"):
        with contextlib.suppress(OSError, ValueError, KeyError):  # another user's, or going
            owner = json.loads(file.read_text())
            if file.stat().st_uid == os.getuid() and not _is_running(**owner):
                ServerFolder(file.parent).remove()


def _is_running(process: int, started: int | None) -> bool:
    return started is not None and start_time(process) == started


def _base() -> Path:
    """Return where temporary folders go that the Python backend takes."""
    # Python makes a file in it, to see if it can, and removes it: Ctrl-C would leave it behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        usual = tempfile.gettempdir()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Path(usual if PLAIN_PATH.fullmatch(usual) else "/tmp")
