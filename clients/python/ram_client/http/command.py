"""The command `ram-http`: serves until SIGTERM or Ctrl-C."""

import argparse
import logging
from typing import get_args

from .. import __version__
from ..arguments import LOOPBACK, add_port, add_server, between
from ..errors import installing
from ..streams import print_error
from .settings import KEYS_VARIABLE, Language, Settings, read_keys

DEFAULT_PORT = 8080
INSTALL = f"install the extra 'http' of ram-client: {installing('http')}"
NEEDS_KEYS = f"others can reach it, so it needs keys: --keys FILE or {KEYS_VARIABLE}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="ram-http: %(message)s", level=logging.WARNING)
    try:
        from ..serving import bind, serve
        from .app import make_server
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is missing: {INSTALL}")
    try:
        keys = read_keys(options.keys)
        listening = bind(options.port, options.host, refusal=None if keys else NEEDS_KEYS)
    except (OSError, ValueError) as error:
        return _fail(error)
    settings = Settings(
        server=options.server,
        timeout=options.timeout,
        max_bytes=round(options.max_megabytes * 2**20),
        concurrency=options.concurrency,
        language=options.language,
        keys=keys,
    )
    serve(make_server(settings), listening)
    return 0


def _fail(problem: object) -> int:
    print_error(problem, "ram-http")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ram-http",
        description="Tag images over HTTP, in the formats of PhotoPrism, of the WD14 taggers and "
        "its own, through a Triton server that serves RAM.",
        epilog="The page /docs describes the requests. Listens on loopback; elsewhere only with "
        "keys. It has no TLS: put a proxy in front of it.",
    )
    add = parser.add_argument
    add_server(add)
    add("--host", default=LOOPBACK, help="address to listen at (default: %(default)s)")
    add_port(add, DEFAULT_PORT)
    add(
        "--keys",
        metavar="FILE",
        help="requests must bring one of the keys in this file, one per line, or of the variable "
        f"{KEYS_VARIABLE}, with commas between them",
    )
    add(
        "--language",
        choices=get_args(Language),
        default=Settings.language,
        help="language of tags in formats with room for one name (default: %(default)s)",
    )
    add(
        "--concurrency",
        type=between(int, 1, 10_000),
        default=Settings.concurrency,
        metavar="N",
        help="requests that are worked on at once; others get 503 (default: %(default)s)",
    )
    add(
        "--max-megabytes",
        type=between(float, 0.001, 2047),
        default=Settings.max_bytes / 2**20,
        metavar="N",
        help="largest body of a request (default: %(default)g)",
    )
    add(
        "--timeout",
        type=between(float, 0.1, 3600),
        default=Settings.timeout,
        metavar="S",
        help="seconds for a body to arrive, and then for the answer (default: %(default)g)",
    )
    add("--version", action="version", version=f"ram-http {__version__}")
    return parser
