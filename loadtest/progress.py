"""How far the answers before the load have come, and how long they take."""

import statistics
import time
from collections.abc import Mapping, Sequence

from ram_client import Tag
from transports import GrpcTransport

INTERVAL = 5.0  # seconds


class Watched:
    """A transport that says every few seconds how many answers came through it.

    Args:
        transport: sends the requests.
    """

    def __init__(self, transport: GrpcTransport):
        self.server = transport.server
        self._transport = transport
        self._latencies: list[float] = []
        self._told = time.perf_counter()

    def tag(
        self,
        images: Sequence[bytes],
        settings: Mapping[str, float] | None = None,
        labels: Sequence[str] = (),
    ) -> list[list[Tag]]:
        """Return each image's tags; raises what the transport raises."""
        began = time.perf_counter()
        answer = self._transport.tag(images, settings, labels)
        now = time.perf_counter()
        self._latencies.append(now - began)
        if now - self._told >= INTERVAL:
            self._told = now
            print(f"load: {len(self._latencies)} answers, {self.median():.2f} s each", flush=True)
        return answer

    def median(self) -> float:
        """Return how many seconds an answer takes; 0 where none came."""
        return statistics.median(self._latencies or [0.0])
