"""The doctor as a process, and what it finds."""

import json
import re
import subprocess
import sys

from ram_triton.server import Ports


def run_doctor(repository, *arguments, ports=None, environment=None):
    ports = vars(ports or Ports.free())
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ram_triton",
            "doctor",
            "--repository",
            repository,
            *arguments,
            *(f"--{name}-port={number}" for name, number in ports.items()),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )


# What other processes leave of the machine; how it is judged test_doctor_memory.py tests.
SHORT = [(subject, "warning") for subject in ("shared memory", "decoding memory")]


def examine(repository, *arguments, **options):
    """Exit status, and [status, text, remedy] of what is not fine: the first of each subject.

    Both without a warning about memory that is short just now.
    """
    done = run_doctor(repository, "--json", *(arguments or ("--profile", "cpu")), **options)
    assert re.sub(r"^checking.*, \d+ s\n", "", done.stderr, flags=re.MULTILINE) == ""
    told = json.loads(done.stdout)
    assert told["status"] == done.returncode
    wrong = [
        (subject, [status, *rest])
        for subject, status, *rest in (finding.values() for finding in told["findings"])
        if status not in ("fine", "not needed") and (subject, status) not in SHORT
    ]
    status = 2 if any(rest[0] == "error" for _, rest in wrong) else int(bool(wrong))
    assert done.returncode in (status, max(status, 1))  # 1 if memory is short
    return status, dict(reversed(wrong))
