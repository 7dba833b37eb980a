"""How the package's own servers listen and serve. It needs uvicorn: commands import it late."""

import ipaddress
import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from .arguments import LOOPBACK

BACKLOG = 1024


def bind(port: int, host: str = LOOPBACK, *, refusal: str | None = None) -> socket.socket:
    """Return a socket that is bound; raises OSError, with a message for people, if it cannot be.

    refusal: what is said of hosts that others can reach, if these are refused.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OSError(f"--host {host}: {error.strerror}") from error
    if refusal and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise OSError(f"--host {host}: {refusal}")
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        reason = error.strerror or "is not possible"
        raise OSError(f"cannot listen at {host}:{port}: {reason}; --port names another") from error
    return listening


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
