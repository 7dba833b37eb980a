"""What a command says where it is interrupted while it imports: goes before what is slow."""

import sys
from pathlib import Path
from types import TracebackType


def say_interrupted(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Say it in one line, as `make` names the command; any other exception as Python does."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    make, _, target = Path(sys.argv[0]).stem.partition("_")
    print(f"{make} {target.replace('_', '-')}: interrupted, run it again", file=sys.stderr)


sys.excepthook = say_interrupted
