"""Options that the package's commands share: their types, and where a server is."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from . import streams
from .connection import SERVER_VARIABLE, metadata

LOOPBACK = "127.0.0.1"  # where the package's own servers listen

Number = TypeVar("Number", int, float)
Value = TypeVar("Value", int, float, str)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints a terminal can show."""

    def error(self, message: str) -> NoReturn:
        """Arguments are in the message as they were given: a terminal must not obey them."""
        super().error(streams.plain(message))


def add_server(add: Callable[..., Any]) -> None:
    """Add the option for Triton's address."""
    add(
        "--server",
        default=os.environ.get(SERVER_VARIABLE) or "localhost:8001",
        metavar="HOST:PORT",
        help=f"Triton's gRPC address (default: {SERVER_VARIABLE} or localhost:8001)",
    )


def add_port(add: Callable[..., Any], default: int) -> None:
    """Add the option for the port that one of the package's own servers listens at."""
    add(
        "--port",
        type=between(int, 0, 65535),
        default=default,
        metavar="N",
        help="port to listen at; 0 takes a free one (default: %(default)s)",
    )


def add_security(add: Callable[..., Any]) -> None:
    """Add the options for TLS and headers, which `connection` reads."""
    add("--tls", action="store_true", help="use TLS, which each of the next three implies")
    add("--tls-ca", metavar="FILE", help="certificates to trust, as PEM (default: gRPC's own)")
    add("--tls-cert", metavar="FILE", help="this client's certificate, if the server wants one")
    add("--tls-key", metavar="FILE", help="private key of --tls-cert")
    add(
        "--header",
        dest="headers",
        type=header,
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="send this with each request, such as a gateway's key; may be repeated",
    )


def add_tags(add: Callable[..., Any]) -> None:
    """Add the options that choose tags."""
    add(
        "--threshold",
        type=probability,
        metavar="0..1",
        help="the score a tag must exceed (default: each tag's own threshold)",
    )
    add("--top-k", type=count, metavar="N", help="the N best of them (default: all)")
    add(
        "--exclude",
        action="append",
        metavar="NAME",
        help="leave out a tag, by English or Chinese name; may be repeated",
    )
    add(
        "--labels",
        type=names,
        metavar="FILE",
        help="look only for the tags in this file, one name per line, instead of the model's own",
    )


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """Return the client's arguments."""
    names = ("server", "timeout", "tls", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(options, name) for name in names} | {"headers": dict(options.headers)}


def checked(
    kind: Callable[[str], Value], accepts: Callable[[Value], bool], description: str
) -> Callable[[str], Value]:
    """An option's type: values of a kind that `accepts` takes, described for who gives others."""

    def parse(text: str) -> Value:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return parse


def between(kind: Callable[[str], Number], least: Number, most: Number) -> Callable[[str], Number]:
    """An option's type: numbers from `least` to `most`."""
    return checked(kind, lambda value: least <= value <= most, f"a number from {least} to {most}")


def header(text: str) -> tuple[str, str]:
    """An option's type: NAME:VALUE."""
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:VALUE")
    try:
        metadata({name: value.strip()})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("headers: ")) from error
    return name, value.strip()


def names(file: str) -> list[str]:
    """An option's type: a file with a name per line."""
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise argparse.ArgumentTypeError(f"{file}: {reason}") from error
    for place, line in enumerate(lines, 1):
        if "\t" in line.strip():
            raise argparse.ArgumentTypeError(f"{file}, line {place}: contains more than a name")
    return [line.strip() for line in lines if line.strip()]


probability = checked(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
count = checked(int, lambda value: 0 <= value < 2**31, "a count")
positive_count = checked(int, lambda value: 0 < value < 2**31, "a count from 1")
seconds = checked(float, lambda value: 0 < value < float("inf"), "a number of seconds")
megabytes = checked(float, lambda value: 0 < value < 2048, "a number of megabytes below 2048")
