"""How the package's own servers serve: what needs uvicorn."""

import signal
import socket

import uvicorn
from starlette.types import ASGIApp

BACKLOG = 1024


class Server(uvicorn.Server):
    """Serves an application, and prints its address when it listens."""

    def __init__(self, app: ASGIApp, *, end_seconds: int, note: str = "") -> None:
        """A server to be run with a socket.

        end_seconds: how long what is being worked on at its end may take.
        note: printed behind the address; `{url}` in it stands for the address.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=end_seconds,
            )
        )
        self._note = note

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            print(url + self._note.format(url=url), flush=True)


def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, which are not errors."""

    def end(*_: object) -> None:
        server.should_exit = True

    # Before uvicorn has its own; without these, its end would be the signal's.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.run(sockets=[listening])
