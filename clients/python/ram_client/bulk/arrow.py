"""pyarrow, for parquet: imported with this package, and so by the main thread.

If the thread that imported it has ended, pyarrow crashes later, now and then (seen with 25.0).
"""

from typing import Any

from .errors import BulkError, extra_needed, reason_of

_problem: ImportError | None = None
try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    _problem = error


def modules(subject: object) -> tuple[Any, Any]:
    """Return `pyarrow` and `pyarrow.parquet`; raises BulkError if they cannot be imported.

    subject: what needs them, for the message.
    """
    if isinstance(_problem, ModuleNotFoundError):
        raise extra_needed(subject, "pyarrow") from _problem
    if _problem:  # it needs another numpy, for one
        raise BulkError(f"{subject}: {reason_of(_problem)}") from _problem
    return pyarrow, pyarrow.parquet
