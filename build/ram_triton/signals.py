"""Signals: which are heeded; Ctrl-C and SIGTERM delayed until a step is whole."""

import signal
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def is_heeded(number: int) -> bool:
    """Whether a signal is to be heeded: not SIGHUP, if nohup has started the process."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


class Interruption:
    """A context where a signal sets `signal` instead of interrupting; a second one interrupts.

    Attributes:
        signal: the number of the first signal; None if there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
