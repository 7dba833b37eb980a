"""Processes as /proc shows them: a server's Python models, and what a dead one left running."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
STUB = b"triton_python_backend_stub"
# The file that a stub serves: model.py, or the graph that a backend in Python runs.
MODEL_FILE = re.compile(rb"/(\w+)/\d+/[^/]+")
ZOMBIE, STOPPED, GONE = "Z", "T", ""
ENDED = (ZOMBIE, "X", GONE)  # as long as nobody has noticed, while its parent does, and after
END_TIMEOUT, END_INTERVAL = 10.0, 0.01  # seconds: for the end of what was killed, between two looks


@dataclass(frozen=True)
class Stub:
    """The process of one instance of a Python model.

    Attributes:
        id: of the process.
        model: its name.
        region: name of its shared memory in /dev/shm.
    """

    id: int
    model: str
    region: str


def stubs(server: int) -> list[Stub]:
    """Return the Python models' processes of a tritonserver; those that have ended are left out."""
    return stubs_among(children(server))


def stubs_among(processes: Iterable[int]) -> list[Stub]:
    """Return those of some processes that are Python models' and have not ended."""
    found = []
    for process in processes:
        arguments = command_line(process)
        if len(arguments) < 3 or not arguments[0].endswith(STUB):
            continue
        if model := MODEL_FILE.search(arguments[1]):
            found.append(Stub(process, model[1].decode(), arguments[2].decode()))
    return found


def children(process: int) -> list[int]:
    """Return the ids of a process's children, of all its threads.

    As their own files name their parent. What /proc lists with each thread of the parent is
    incomplete while a thread ends, whose children another takes over.
    """
    return [child for child, parent in _parents().items() if parent == process]


def tree(process: int) -> list[int]:
    """Return the ids of a process and of all that descend from it."""
    found, parents = [process], _parents()
    for each in found:  # which grows meanwhile
        found += [child for child, parent in parents.items() if parent == each]
    return found


def read_numbers(file: Path) -> dict[str, int]:
    """Return the numbers of /proc/PID/status, /proc/meminfo or their like by name; kB in bytes.

    Raises:
        OSError: it cannot be read, as that of a process that has ended.
    """
    found = {}
    for line in file.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        number, *unit = value.split() or [""]
        if number.isdecimal():
            found[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return found


def resident_peak(process: int | str) -> int:
    """Return the peak resident bytes of a process that is running, given by its id or as `self`.

    Raises:
        ProcessLookupError, FileNotFoundError: it has ended.
    """
    numbers = read_numbers(PROC / str(process) / "status")
    if "VmHWM" not in numbers:
        raise ProcessLookupError(f"process {process} has ended")  # and is waited for
    return numbers["VmHWM"]


def command_line(process: int) -> list[bytes]:
    """Return a process's arguments; none if it has ended."""
    with contextlib.suppress(OSError):
        return (PROC / str(process) / "cmdline").read_bytes().split(b"\0")
    return []


def state(process: int) -> str:
    """Return the letter of a process's state, such as `STOPPED`; `GONE` if it is not there."""
    return next(iter(_fields(process)), GONE)


def is_over(process: int) -> bool:
    """Return whether a process has ended, whether or not its parent has noticed."""
    return state(process) in ENDED


def start_time(process: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it has ended.

    Together with its id this names a process for good: ids are used again.
    """
    fields = _fields(process)
    return int(fields[19]) if fields and fields[0] not in ENDED else None


def kill_all_with(text: str) -> list[int]:
    """Kill this user's processes whose command line contains a text, and wait for their end.

    Returns:
        Their ids.
    """
    killed = []
    for folder in PROC.glob("[0-9]*"):
        process = int(folder.name)
        if process == os.getpid() or text.encode() not in b"\0".join(command_line(process)):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
            killed.append(process)
    deadline = time.monotonic() + END_TIMEOUT
    while not all(map(is_over, killed)) and time.monotonic() < deadline:
        time.sleep(END_INTERVAL)
    return killed


def _parents() -> dict[int, int]:
    """Return each process of the machine that can be seen, and its parent."""
    found = {int(folder.name): _fields(int(folder.name)) for folder in PROC.glob("[0-9]*")}
    return {process: int(fields[1]) for process, fields in found.items() if fields}


def _fields(process: int) -> list[str]:
    """Return what /proc/PID/stat has after the name, from the state on."""
    with contextlib.suppress(OSError):
        # The kernel cuts a name after 15 bytes, be it within a letter.
        stat = (PROC / str(process) / "stat").read_bytes()
        return stat.rpartition(b")")[2].decode().split()
    return []
