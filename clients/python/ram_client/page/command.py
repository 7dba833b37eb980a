"""The command `ram-page`: serves the page until SIGTERM or Ctrl-C."""

import argparse
import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import __version__
from ..arguments import Parser, add_port, add_security, add_server, between, connection
from ..async_client import AsyncRamClient
from ..errors import CertificateError, ImageUnreadable, installing
from ..files import find_images
from ..streams import print_error

DEFAULT_PORT = 7860  # Gradio's
INSTALL = f"install the extra 'page' of ram-client: {installing('page')}"
INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended
# Gradio reads them when it is imported: nothing is told to its makers, nor asked of them.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="ram-page: %(message)s", level=logging.WARNING)
    try:
        from ..serving import bind, serve

        client = AsyncRamClient(**connection(options))
        examples = _examples(options.examples)
        with bind(options.port) as listening, TemporaryDirectory(prefix="ram-page-") as folder:
            os.environ.update(QUIET, GRADIO_TEMP_DIR=folder)  # dropped pictures go there
            from .app import make_server

            serve(make_server(client, examples, options.max_megabytes), listening)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is missing: {INSTALL}")
    except (CertificateError, ImageUnreadable, OSError, ValueError) as error:
        return _fail(error)
    except KeyboardInterrupt:  # before it serves
        return INTERRUPTED
    return 0


def _examples(places: list[Path]) -> list[Path]:
    """Return the pictures that these mean; raises ImageUnreadable if one cannot be read."""
    found = [path for place in places for path in find_images(place, recursive=False)]
    for path in found:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ImageUnreadable(f"{path}: {error.strerror}") from error
    return found


def _fail(problem: object) -> int:
    print_error(problem, "ram-page")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ram-page",
        description="Serve a page that tags the pictures dropped on it, through a Triton server "
        "that serves RAM.",
        epilog="Listens on loopback alone, without keys: to reach it from elsewhere, put a proxy "
        "with TLS and keys on this machine in front of it.",
    )
    add = parser.add_argument
    add_server(add)
    add_port(add, DEFAULT_PORT)
    add(
        "--examples",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|FOLDER",
        help="pictures to offer on the page; may be repeated",
    )
    add(
        "--max-megabytes",
        type=between(float, 0.001, 2047),
        default=20.0,
        metavar="N",
        help="size of the largest picture (default: %(default)g, the server's own limit)",
    )
    add(
        "--timeout",
        type=between(float, 0.1, 3600),
        default=60.0,
        metavar="S",
        help="seconds for an answer, retries included (default: %(default)g)",
    )
    add_security(parser.add_argument_group("secured servers").add_argument)
    add("--version", action="version", version=f"ram-page {__version__}")
    return parser
