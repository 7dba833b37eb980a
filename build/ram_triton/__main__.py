"""Starts `ram-triton`; a file of its own, because it imports nothing before it guards."""

import sys


def main() -> int:
    """Run the command and return its exit status; Ctrl-C is one line even while Python imports."""
    try:
        from ram_triton.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("ram-triton: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
