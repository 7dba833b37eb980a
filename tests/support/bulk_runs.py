"""`ram-bulk`, here or as a process of its own, and what it wrote."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

from pyarrow import parquet
from ram_client.bulk import command as bulk_command

from support import PATIENCE

COMMAND = (sys.executable, "-m", "ram_bulk")


def start(*arguments, command=COMMAND, **options):
    command = [*command, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options
    )


def run(*arguments, **options):
    with start(*arguments, **options) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def run_here(*arguments):
    """The same without a process, which would take longer to start than most runs do."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            status = bulk_command.main([*map(str, arguments)])
        except SystemExit as wrong_usage:
            status = wrong_usage.code
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def rows(folder):
    """All rows of a folder of parquet, in order."""
    parts = sorted(folder.glob("*.parquet"))
    return [row for part in parts for row in parquet.read_table(part).to_pylist()]


def lines(text):
    return text.splitlines()
