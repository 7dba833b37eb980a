"""Where the package's own servers listen."""

import argparse
import ipaddress
import socket

from .arguments import between

LOOPBACK = "127.0.0.1"


def add_port(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the option for the port."""
    parser.add_argument(
        "--port",
        type=between(int, 0, 65535),
        default=default,
        metavar="N",
        help="port to listen at; 0 takes a free one (default: %(default)s)",
    )


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
