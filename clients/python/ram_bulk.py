"""Starts the command `ram-bulk`, whose code is ram_client/bulk/command.py.

A module of its own because it has to run before the package, and with it gRPC, is imported.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import NoReturn

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended


def main() -> NoReturn:
    """Run the command, and end the process with its exit status; Ctrl-C ends it at any time."""
    # Without it gRPC logs to stderr when a server goes away. It is read when gRPC is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from ram_client.bulk import command

        status = command.main()
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = INTERRUPTED
    # At once: a thread may be reading from a network that does not answer, and those of pyarrow now
    # and then abort a process that ends.
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by who started it
        with suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
