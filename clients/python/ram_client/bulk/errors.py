"""What ends a run."""

from ..errors import RamError, installing


class BulkError(RamError):
    """Ends the run with one line; what was done stays, and the same command goes on."""


def extra_needed(subject: object, package: str) -> BulkError:
    """Return the error for a library that is not installed."""
    return BulkError(f"{subject}: {package} is not installed: {installing('bulk')}")


def first_of(group: BaseException) -> BaseException:
    """Return the first exception of a task group's, which is why its other tasks ended."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def reason_of(error: BaseException) -> str:
    """Return what an exception reports, on one line of valid text."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
