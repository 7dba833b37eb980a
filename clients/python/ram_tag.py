"""Starts the command `ram-tag`, whose code is ram_client/cli.py.

A module of its own because it has to run before the package, and with it gRPC, is imported.
"""

import os
import sys

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended


def main() -> int:
    """Run the command and return its exit status; Ctrl-C ends it quietly at any time."""
    # Without it gRPC logs to stderr when a server goes away. It is read when gRPC is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from ram_client import cli

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
