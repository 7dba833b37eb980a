"""The TCP ports of a server: free ones, taken ones, and a reservation until it listens."""

import argparse
import contextlib
import itertools
import random
import socket
from dataclasses import dataclass, fields

from ram_triton.errors import ServerError

LOOPBACK = "127.0.0.1"
# Below those that Linux gives to whoever names none: such a one would be taken again at any time.
FREE = range(10_000, 32_768)
TRITONS = ("http", "grpc", "metrics")  # the other is the supervisor's, over all starts


@dataclass(frozen=True)
class Ports:
    """The TCP ports of a server: three of Triton's, and one of its supervisor."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    health: int = 8003

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Ports":
        """Those that the options of `add_ports` name."""
        return cls(*(getattr(options, f"{field.name}_port") for field in fields(cls)))

    @classmethod
    def free(cls) -> "Ports":
        """Ports that are free just now, and that this process has not had for long."""
        return cls(*itertools.islice(filter(_is_free, _numbers), 4))

    def taken(self) -> list[int]:
        """Those of the ports that somebody listens on already."""
        return [number for number in vars(self).values() if _is_taken(number)]

    def reserve(self) -> contextlib.ExitStack:
        """Keep other servers of ours off Triton's ports until the result is closed.

        Tritonserver listens only after it has loaded its models. Until then a second server would
        take the first one's answers for its own.

        Raises:
            ServerError: somebody listens on a port, or has reserved it.
        """
        with contextlib.ExitStack() as stack:
            for kind in TRITONS:
                number = getattr(self, kind)
                name = stack.enter_context(socket.socket(socket.AF_UNIX))
                try:
                    name.bind(_reserved(number))  # the kernel frees it with the process
                    taken = _is_taken(number)
                except OSError:
                    taken = True
                if taken:
                    raise ServerError(
                        f"port {number} is taken: stop what listens there, or choose another by "
                        f"--{kind}-port (make: {kind.upper()}_PORT=)"
                    )
            return stack.pop_all()


# Each process goes on from a place of its own, so that two rarely look at the same ports.
_start = random.randrange(len(FREE))
_numbers = itertools.cycle([*FREE[_start:], *FREE[:_start]])


def _reserved(port: int) -> str:
    """Return the name of an abstract socket, which whoever has reserved a port has."""
    return f"\0ram-triton-port-{port}"


def _is_free(port: int) -> bool:
    with (
        socket.socket() as listener,
        socket.socket(socket.AF_UNIX) as name,
        contextlib.suppress(OSError),
    ):
        listener.bind((LOOPBACK, port))
        name.bind(_reserved(port))
        return True
    return False


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex((LOOPBACK, port)) != 0:
            return False
        # A connection to a free port may meet itself.
        return bool(probe.getsockname() != probe.getpeername())
