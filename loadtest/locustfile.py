"""Load-test a server of RAM with locust; README.md beside this file tells how."""

from locust import events
from options import add_options
from run import Run
from users import GrpcUser, HttpUser

__all__ = ["GrpcUser", "HttpUser"]

events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def begin(environment, **_: object) -> None:
    """Take part in the test, as one process of it."""
    Run(environment)
