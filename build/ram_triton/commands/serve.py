"""Serve a model repository until Ctrl-C, and bring the service back by itself if it fails.

Triton's own log goes into a file. Options after `--` are tritonserver's.
"""

import argparse
import shlex
import sys
from pathlib import Path

from ram_triton.arguments import add_ports, add_repository, not_negative, positive
from ram_triton.files import short
from ram_triton.repository.layout import CPU, DEMO_IMAGES, PROFILES, PROJECT
from ram_triton.server import LOOPBACK, Ports, TritonServer

CONTROL = "--model-control-mode"
STDOUT = 1  # its descriptor
LOGS = PROJECT / "runs" / "serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")
    add_ports(parser)
    add = parser.add_argument
    add("--address", default=LOOPBACK, help="address to listen at (default: %(default)s)")
    add(
        "--accept-known-vulnerabilities",
        action="store_true",
        help="listen elsewhere than on loopback even if tritonserver is older than 26.07",
    )
    add("--profile", choices=PROFILES, default=CPU, help="configs to use (default: %(default)s)")
    add(
        "--log",
        type=Path,
        metavar="FILE",
        help="where Triton's log goes (default: triton-PORT.log in the project's runs/serve)",
    )
    add("--verbose", action="store_true", help="print Triton's log as well")
    add(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="the key of Triton's restricted APIs, made if it is missing; the variable "
        "RAM_TRITON_KEY takes precedence (default: key in the project's runs/serve)",
    )
    add(
        "--grace",
        type=not_negative,
        default=30.0,
        metavar="SECONDS",
        help="seconds that running requests have to end (default: %(default)g)",
    )
    add(
        "--attempts",
        type=positive,
        default=5,
        metavar="N",
        help="restarts in a row before giving up (default: %(default)s)",
    )
    add(
        "--no-reload",
        action="store_true",
        help="if a model's process dies, start the whole server again instead of the model alone",
    )
    add(
        "triton_arguments",
        nargs="*",
        metavar="-- TRITON_ARGUMENT",
        help="further arguments of tritonserver",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes, which is how it is meant to end."""
    from ram_triton.repository.repository import Repository
    from ram_triton.server import access
    from ram_triton.server.installation import Installation
    from ram_triton.server.log import LineWriter
    from ram_triton.server.supervisor import Policy, Supervisor
    from ram_triton.signals import Stopping

    say = LineWriter(STDOUT)
    with Stopping() as stopping:
        Repository(arguments.repository).require_manifest()
        if not arguments.accept_known_vulnerabilities:
            release = Installation.find().release
            access.require_safe_address(arguments.address, arguments.triton_arguments, release)
        ports = Ports.of(arguments)
        log = arguments.log or LOGS / f"triton-{ports.http}.log"
        given = arguments.triton_arguments
        chooses_control = any(option.startswith(CONTROL) for option in given)
        policy = Policy(
            attempts=arguments.attempts,
            grace=arguments.grace,
            can_reload=not (arguments.no_reload or chooses_control),
        )
        server = TritonServer(
            arguments.repository,
            ports,
            log=say if arguments.verbose else lambda line: None,
            log_file=log,
            progress=say,
            arguments=(*(() if chooses_control else policy.options), *given),
            address=arguments.address,
            profile=arguments.profile,
            key=access.read_key(arguments.key_file or access.KEY_FILE),
        )
        say(f"Loading {len(server.models())} models of {short(arguments.repository)}")
        say(f"Triton's log: {short(log)}")

        def announce() -> None:
            say(f"Ready: gRPC {server.grpc}, HTTP {server.http}, metrics {server.metrics}")
            say(f"Try: {example(server.grpc)}")
            say("Ctrl-C stops the server.")

        def report(line: str) -> None:
            say(f"ram-triton serve: {line}")

        Supervisor(server, report, announce, stopping, policy).run()
    say("ram-triton serve: stopped")
    return 0


def example(server: str) -> str:
    """Return a command that tags a picture of the demo through a server."""
    ram_tag = Path(sys.executable).with_name("ram-tag")
    options = [] if server.endswith(f":{Ports.grpc}") else ["--server", server]
    return shlex.join([short(ram_tag), *options, short(DEMO_IMAGES / "apple.png")])
