"""The door of an ensemble: a first step lets images in while there is room for them.

What it does not let in waits in Triton's queue before it, which is limited: a picture is not
decoded if the encoder could not take it for long. backlog.py counts.

And it refuses new requests while the server ends in order. Triton itself refuses an ensemble's
later steps as soon as it is told to stop, and so fails what it has begun. Whoever starts it names a
folder in RAM_SERVER_FOLDER and, before telling it, puts a file of the step's name into it. The file
contains a mark; an image that has it is let through, so that the starter sees when the requests
before it are answered.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .backlog import DOOR, ENCODER, FOLDER, REST, count_waiting, take_part
from .request import UnavailableError

MOST = 32  # images that wait or are in a door when another opens: one batch of the encoder's
LONGEST = 5.0  # seconds of the encoder's work that may wait, should that be fewer images
PATIENCE = 10.0  # seconds for which a door waits before it refuses
LOOK = 0.01  # seconds between two looks
MARKED = 256  # bytes at an image's beginning that may have the mark


class Door:
    """Lets batches in, each as soon as there is room and those before it are in."""

    def __init__(self, folder: str | None = FOLDER, patience: float = PATIENCE) -> None:
        """Take part in the count.

        Args:
            folder: of the counts; without it, or if it cannot be written, there is always room.
            patience: seconds for which a batch waits for room before it is refused.
        """
        self._counts = take_part(folder, DOOR)
        self._patience = patience
        self._is_open = True

    def pass_on(
        self, requests: Sequence[Any], answer: Callable[[], list[Any]], is_last: bool = False
    ) -> list[Any]:
        """Answer a batch of Triton's requests once there is room for it.

        Args:
            requests: their first input has a row per image.
            answer: makes a response per request, and calls `require_room` for each.
            is_last: whether to wait, too, until all other doors have handed on what they work on.
        """
        if self._counts is None:
            return answer()
        sizes = [request.inputs()[0].shape()[0] for request in requests]
        self._is_open = self.wait_for_room(sum(sizes), is_last)
        responses = answer()
        handed_on = (
            size
            for size, response in zip(sizes, responses, strict=True)
            if not response.has_error()
        )
        self._counts.own["images"] += sum(handed_on)
        self.release()
        return responses

    def wait_for_room(self, images: int = 0, is_last: bool = False) -> bool:
        """Wait until there is room, but not for ever; returns whether there is.

        Args:
            images: that the door works on from then on.
            is_last: as for `pass_on`.
        """
        if self._counts is None:
            return True
        began = time.monotonic_ns()
        self._counts.own["waits_since"] = began
        self._counts.write()
        while not (is_open := has_room(self._counts.read(), self._counts.place, is_last)):
            if time.monotonic_ns() - began > self._patience * 1e9:
                break
            time.sleep(LOOK)
        self._counts.own["waits_since"], self._counts.own["at_work"] = 0, images * is_open
        self._counts.write()
        return is_open

    def release(self) -> None:
        """Count what the door works on no longer."""
        if self._counts is not None:
            self._counts.own["at_work"] = 0
            self._counts.write()

    def require_room(self) -> None:
        """Raise `UnavailableError` if the batch waited in vain."""
        if not self._is_open:
            raise UnavailableError("the encoder has all it can do: ask another, or this one later")


def has_room(rows: np.ndarray, place: int, is_last: bool) -> bool:
    """Return whether a door may open.

    Args:
        rows: the counts, (N,) of `backlog.FIELDS`.
        place: of the door among them.
        is_last: whether all other doors have to be empty.
    """
    waiting = int(rows["at_work"][rows["kind"] == DOOR].sum())
    before = (rows["waits_since"] > 0) & (rows["waits_since"] < rows[place]["waits_since"])
    if before.any() or (is_last and waiting):
        return False
    encoders = rows[(rows["kind"] == ENCODER) & (rows["rests_since"] > 0)]
    if not len(encoders):
        return True  # TensorRT's, say, whose queue has a limit
    has_rested = time.monotonic_ns() - encoders["rests_since"] > REST
    if not (has_rested & (encoders["at_work"] == 0)).any():
        waiting += max(0, count_waiting(rows))
    seconds = waiting * float(encoders["pace"].mean()) / len(encoders) / 1e9
    return waiting < MOST and seconds < LONGEST


def read_mark(step: str) -> bytes | None:
    """Return what lets an image through this step now; None if every image is.

    To be read once per batch: its later requests were there before those that are refused.
    """
    if FOLDER is None:
        return None
    try:
        return Path(FOLDER, step).read_bytes()
    except OSError:
        return None


def refuse_without(mark: bytes | None, images: Sequence[bytes]) -> None:
    """Raise `UnavailableError` if an image lacks the mark."""
    if mark is not None and not all(mark and mark in image[:MARKED] for image in images):
        raise UnavailableError("the server is stopping: ask another, or this one later")
