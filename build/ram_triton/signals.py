"""Signals that do not interrupt: kept until a step is whole, or the end of a server in order."""

import signal
from _thread import start_new_thread
from abc import ABC, abstractmethod
from threading import Event
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_heeded(number: int) -> bool:
    """Whether a signal is to be heeded: not SIGHUP, if nohup has started the process."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


class _Context(ABC):
    """A context in which signals call `_handle`."""

    _numbers: tuple[int, ...] = SIGNALS

    def __enter__(self) -> Self:
        heeded = filter(is_heeded, self._numbers)
        self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @abstractmethod
    def _handle(self, number: int, _: FrameType | None) -> None: ...


class Interruption(_Context):
    """A context where a signal sets `signal` instead of interrupting; a second one interrupts.

    Attributes:
        signal: the number of the first signal; None if there was none.
    """

    _numbers = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None

    def raise_signal(self) -> None:
        """Deliver the signal that was delayed, if any; to be called after the context.

        Raises:
            KeyboardInterrupt: there was one.
        """
        if self.signal is not None:
            signal.raise_signal(self.signal)  # to the handler that was there before
            raise KeyboardInterrupt

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


class Stopping(_Context):
    """A context where signals end a server: the first one in order, the second one at once.

    Attributes:
        asked: set by the first signal.
        at_once: set by the second.
    """

    def __init__(self) -> None:
        self.asked, self.at_once = Event(), Event()
        self._number = 0  # of signals

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._number += 1
        # In a thread: what the signal interrupts may be holding the event's lock, or threading's.
        start_new_thread((self.asked if self._number == 1 else self.at_once).set, ())
