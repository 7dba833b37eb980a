"""The supervisor's own HTTP endpoint: whether the service is whole, and what happened to it."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from ram_triton.errors import ServerError

TIMEOUT = 5.0  # seconds that a client may take to ask
READY, LIVE, METRICS = "/health/ready", "/health/live", "/metrics"


class Health:
    """What is known of the service, and the server that shows it.

    `/health/ready` is 200 only if every process is there and the last picture was tagged, else
    503; `/health/live` is 200 as long as the supervisor runs; both return the state as JSON.
    `/metrics` has the counters for Prometheus.

    Attributes:
        state: starting, ready, reloading, restarting or stopping.
        reason: the last thing that went wrong, "" if nothing did.
        restarts: of the server since the supervisor's start.
        reloads: of each model.
        lines_dropped: returns how many lines of the log could not be kept.
    """

    def __init__(self) -> None:
        self.state, self.reason, self.restarts = "starting", "", 0
        self.reloads: Counter[str] = Counter()
        self.lines_dropped: Callable[[], int] = lambda: 0
        self._begin = time.monotonic()
        self._server: _Server | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the service is whole."""
        return self.state == "ready"

    def serve(self, address: str, port: int) -> None:
        """Listen from now on; nothing is done if it does already.

        Raises:
            ServerError: the port is taken.
        """
        if self._server is not None:
            return
        try:
            self._server = _Server((address, port), _handler(self))
        except OSError as error:
            raise ServerError(
                f"port {port} is taken: stop what listens there, or choose another by "
                "--health-port (make: HEALTH_PORT=)"
            ) from error
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for `/health/ready` and `/health/live`."""
        return {
            "state": self.state,
            "reason": self.reason,
            "restarts": self.restarts,
            "reloads": dict(self.reloads),
            "log_lines_dropped": self.lines_dropped(),
            "seconds": round(time.monotonic() - self._begin),
        }

    def as_metrics(self) -> str:
        """Return the counters in Prometheus' text format."""
        lines = [f"ram_ready {int(self.is_ready)}", f"ram_restarts_total {self.restarts}"]
        lines += [f'ram_reloads_total{{model="{m}"}} {n}' for m, n in dict(self.reloads).items()]
        return "\n".join([*lines, f"ram_log_lines_dropped_total {self.lines_dropped()}", ""])


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what is wrong here, not that a probe did not wait for its answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            if self.path == METRICS:
                self._answer(200, health.as_metrics(), "text/plain; version=0.0.4")
            elif self.path in (READY, LIVE):
                status = 200 if health.is_ready or self.path == LIVE else 503
                self._answer(status, json.dumps(health.as_json()) + "\n", "application/json")
            else:
                self._answer(404, f"there are {READY}, {LIVE} and {METRICS}\n", "text/plain")

        def _answer(self, status: int, text: str, kind: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing: probes come every few seconds."""

    return Handler
