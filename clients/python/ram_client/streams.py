"""The process's streams: closed ones replaced, and lines that a terminal cannot take for orders."""

import io
import os
import sys
from contextlib import suppress

JOINERS = "\u200c\u200d"  # parts of emoji and of some scripts, though they print nothing


def prepare() -> bool:
    """Make stdout and stderr usable whatever the caller did; return whether stdout is open.

    Cron jobs and daemons may start a program with a stream closed. Its number would go to the next
    file or connection, and messages into that.
    """
    is_open = sys.stdout is not None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY
            null = os.open(os.devnull, mode)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be valid text, nor a terminal able to show every tag.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return is_open


def silence_stdout() -> None:
    """Send what is still to be flushed at the exit nowhere: it has failed once."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def plain(text: object) -> str:
    """Return a text on one line, with escapes for what a terminal would obey and not show."""
    return "".join(
        character
        if character.isprintable() or character in JOINERS or "\ud800" <= character <= "\udfff"
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def print_error(message: object, program: str = "ram-tag") -> None:
    """Print one line on stderr, however many the message has."""
    text = " ".join(map(plain, str(message).splitlines()))
    with suppress(OSError):  # a full disk, or nobody who reads: the results still count
        print(f"{program}:", text, file=sys.stderr, flush=True)


def print_line(text: str) -> None:
    """Print one line on stdout, which a terminal can show."""
    print(plain(text), flush=True)
