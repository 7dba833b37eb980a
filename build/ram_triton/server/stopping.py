"""Signals that end a server: the first in order, the second at once."""

import signal
from _thread import start_new_thread
from threading import Event
from types import FrameType
from typing import Self

from ram_triton.signals import is_heeded

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """A context where a signal interrupts nothing, but sets an event.

    Attributes:
        asked: set by the first signal.
        at_once: set by the second.
    """

    def __init__(self) -> None:
        self.asked, self.at_once = Event(), Event()
        self._number = 0  # of signals

    def __enter__(self) -> Self:
        heeded = filter(is_heeded, SIGNALS)
        self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._number += 1
        # In a thread: what the signal interrupts may be holding the event's lock, or threading's.
        start_new_thread((self.asked if self._number == 1 else self.at_once).set, ())
