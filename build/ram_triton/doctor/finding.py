"""One thing that was looked at, and how it stands."""

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """How a thing stands; a higher one is worse."""

    FINE = 0
    NOT_NEEDED = 1
    UNKNOWN = 2  # could not be looked at
    WARNING = 3  # serves, but not as it should
    ERROR = 4  # does not serve, or serves something wrong

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        subject: what was looked at.
        status: how it stands.
        text: what was seen, in one line.
        remedy: what to do about it; empty where nothing is to be done.
    """

    subject: str
    status: Status
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Refuse trouble that comes without a remedy."""
        if self.status > Status.NOT_NEEDED and not self.remedy:
            raise ValueError(f"{self.subject}: '{self.text}' comes without a remedy")


def fine(subject: str, text: str) -> Finding:
    """Nothing is wrong."""
    return Finding(subject, Status.FINE, text)


def not_needed(subject: str, text: str) -> Finding:
    """The profile does not use it."""
    return Finding(subject, Status.NOT_NEEDED, text)


def unknown(subject: str, text: str, remedy: str) -> Finding:
    """It could not be looked at."""
    return Finding(subject, Status.UNKNOWN, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """It works, with a drawback."""
    return Finding(subject, Status.WARNING, text, remedy)


def error(subject: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(subject, Status.ERROR, text, remedy)
