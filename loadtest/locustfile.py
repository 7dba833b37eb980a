"""Load-test a server of RAM with locust; README.md beside this file is the manual.

The users: each sends requests of all kinds, one after the other, and checks each answer.
"""

from collections.abc import Callable
from typing import ClassVar

from locust import User, events, tag
from locust.env import Environment
from ram_load.distributed import Session
from ram_load.options import add_options
from ram_load.run import join
from ram_load.transports import GrpcTransport, HttpTransport, Transport

WEIGHTS = {
    "plain": 50,  # one image, and nothing else
    "threshold": 10,  # and a threshold for all tags
    "top_k": 10,  # and how many tags are wanted
    "open": 10,  # and the labels to look for; a plain request if the server takes none
    "batch": 10,  # several images
    "broken": 10,  # one broken image, whose right answer is an error
}


def sends(name: str) -> Callable[["RamUser"], None]:
    """Return a task that sends requests of a kind; `--tags` chooses it by the kind's name."""

    @tag(name)
    def send(user: "RamUser") -> None:
        user.send(name)

    send.__name__ = name
    return send


class RamUser(User):
    """Sends requests of all kinds; `WEIGHTS` are those of ordinary traffic.

    In the closed loop a user sends its next request when it has its answer. In the open loop it
    takes the next one that is due, and the latency counts from then.
    """

    abstract = True
    # A list, as locust declares it.
    tasks = [task for name, weight in WEIGHTS.items() for task in [sends(name)] * weight]  # noqa: RUF012
    session: ClassVar[Session]

    def on_start(self) -> None:
        """Connect."""
        self.due: float | None = None
        self.transport = self.connect()

    def on_stop(self) -> None:
        """Disconnect."""
        self.transport.close()

    def connect(self) -> Transport:
        """Return how requests are sent."""
        raise NotImplementedError

    def wait_time(self) -> float:
        """Wait until a request is due: in the closed loop that is now."""
        self.due = self.session.wait()
        return 0

    def send(self, name: str) -> None:
        """Send a request of this kind; before the first one locust has not waited."""
        due = self.session.wait() if self.due is None else self.due
        self.session.send(self.transport, name, due)


class GrpcUser(RamUser):
    """Uses gRPC, through the project's Python client."""

    weight = 3

    def connect(self) -> GrpcTransport:
        """Return a connection to --grpc-server."""
        options = self.environment.parsed_options
        return GrpcTransport(options.grpc_server, options.timeout)


class HttpUser(RamUser):
    """Uses HTTP, through Triton's Python client."""

    weight = 1

    def connect(self) -> HttpTransport:
        """Return a connection to --host."""
        return HttpTransport(self.environment.host, self.environment.parsed_options.timeout)


def begin(environment: Environment, **_: object) -> None:
    """Take part in the test, as one process of it."""
    RamUser.session = join(environment, HttpUser in environment.user_classes)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(begin)
