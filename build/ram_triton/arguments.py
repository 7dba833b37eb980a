"""Types of command-line arguments that several commands take.

A text that is not of a type raises argparse.ArgumentTypeError.
"""

import argparse
import math
from pathlib import Path

from ram_triton.repository.layout import DEFAULT_REPOSITORY


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _whole_number(text, 1, math.inf, "a whole number of at least 1")


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole_number(text, 0, math.inf, "a whole number of at least 0")


def port(text: str) -> int:
    """Read a TCP port."""
    return _whole_number(text, 1, 65535, "a port: 1 to 65535")


def _whole_number(text: str, lowest: int, highest: float, what: str) -> int:
    if text.isdecimal() and lowest <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not {what}")


def not_negative(text: str) -> float:
    """Read a finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:  # so that NaN is refused too
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 0")
    return number


def add_repository(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add `--repository`, by default the project's own model_repository/."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=DEFAULT_REPOSITORY,
        metavar="DIR",
        help=f"{purpose} (default: the project's model_repository)",
    )


def add_ports(parser: argparse.ArgumentParser) -> None:
    """Add `--http-port` and so on, by default Triton's own and the one after them."""
    for kind, default, purpose in (
        ("http", 8000, "HTTP"),
        ("grpc", 8001, "gRPC"),
        ("metrics", 8002, "Triton's metrics"),
        ("health", 8003, "the supervisor's health"),
    ):
        parser.add_argument(
            f"--{kind}-port",
            type=port,
            default=default,
            metavar="PORT",
            help=f"port for {purpose} (default: %(default)s)",
        )
