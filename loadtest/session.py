"""What one process sends during one run, and what of it is still to be answered."""

import time
from dataclasses import dataclass
from pathlib import Path

import gevent
from arrivals import Arrivals
from expected import Expected
from gevent.lock import RLock
from pictures import Picture, PicturesError, make_broken, make_mixed, read_folder
from traffic import Traffic

POLL_INTERVAL = 0.02  # seconds

_found: dict[str, tuple[list[Picture], list[Picture]]] = {}
_finding = RLock()


@dataclass
class Session:
    """The state that the users of a process share.

    Attributes:
        traffic: draws requests.
        expected: judges answers.
        arrivals: of the open loop; None in the closed one.
        in_flight: requests sent and not yet counted.
        finished: no more requests are to be sent.
        first: when the first request was due, as `time.perf_counter` tells it; 0 before.
        last: when the last one was answered, or the run ended.
    """

    traffic: Traffic
    expected: Expected
    arrivals: Arrivals | None = None
    in_flight: int = 0
    finished: bool = False
    first: float = 0.0
    last: float = 0.0

    def span(self) -> float:
        """Return over how many seconds requests were due and answered."""
        return self.last - self.first if self.first else 0.0

    def pending(self) -> int:
        """Return how many requests are due or sent, and not yet counted."""
        return self.in_flight + (self.arrivals.waiting() if self.arrivals else 0)

    def finish(self, timeout: float) -> list[float]:
        """Send no more, and wait for the answers that are due.

        Args:
            timeout: seconds.

        Returns:
            How many seconds each request of the open loop had waited that was never sent.
        """
        self.finished = True
        now = self.last = time.perf_counter()
        unsent = self.arrivals.close() if self.arrivals else []
        with gevent.Timeout(timeout, exception=False):
            gevent.sleep(POLL_INTERVAL)
            while self.in_flight:
                gevent.sleep(POLL_INTERVAL)
        return [now - due for due in unsent]


def find_pictures(folder: str) -> tuple[list[Picture], list[Picture]]:
    """Return what to send, good and broken: of this folder, or made for it where there is none.

    They are found once for all tests of the process, and in a real thread: a worker that is busy
    for seconds would be taken for dead.

    Raises:
        PicturesError: there are no pictures.
    """
    with _finding:
        if folder not in _found:
            found = gevent.get_hub().threadpool.apply(_find_pictures, (folder,))
            if isinstance(found, PicturesError):
                raise found
            _found[folder] = found
        return _found[folder]


def _find_pictures(folder: str) -> tuple[list[Picture], list[Picture]] | PicturesError:
    try:
        pictures = read_folder(Path(folder)) if folder else make_mixed()
    except PicturesError as error:
        return error  # gevent would print one that was raised in a thread
    return pictures, make_broken(pictures)
