"""What ends a run: an error, or a library that is not there.

pyarrow is imported with this package, and so by the main thread. If the thread that imported it has
ended, it crashes later, now and then (seen with 25.0).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import RamError, installing, reason_of

_arrow_problem: ImportError | None = None
try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    _arrow_problem = error


class BulkError(RamError):
    """Ends the run with one line; what was done stays, and the same command goes on."""


def extra_needed(subject: object, package: str) -> BulkError:
    """Return the error for a library that is not installed."""
    return BulkError(f"{subject}: {package} is not installed: {installing('bulk')}")


def arrow_modules(subject: object) -> tuple[Any, Any]:
    """Return `pyarrow` and `pyarrow.parquet`; raises BulkError if they cannot be imported.

    subject: what needs them, for the message.
    """
    if isinstance(_arrow_problem, ModuleNotFoundError):
        raise extra_needed(subject, "pyarrow") from _arrow_problem
    if _arrow_problem:  # it needs another numpy, for one
        raise BulkError(f"{subject}: {reason_of(_arrow_problem)}") from _arrow_problem
    return pyarrow, pyarrow.parquet


@contextmanager
def ending_run(subject: object, *errors: type[Exception], problem: str = "") -> Iterator[None]:
    """Raise such errors of the block as a BulkError: the subject, the problem, and its reason."""
    try:
        yield
    except RamError:
        raise
    except errors as error:
        raise BulkError(f"{subject}: {problem}{reason_of(error)}") from error
