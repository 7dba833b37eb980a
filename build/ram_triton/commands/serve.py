"""Serve a model repository on this machine's CPU until Ctrl-C.

Triton's own log goes into a file. Options after `--` are tritonserver's.
"""

import argparse
import shlex
import sys
from pathlib import Path

from ram_triton.arguments import add_ports, add_repository
from ram_triton.files import short
from ram_triton.repository.layout import DEMO_IMAGES, PROJECT
from ram_triton.server import Ports, TritonServer

LOGS = PROJECT / "runs" / "serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")
    add_ports(parser)
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="where Triton's log goes (default: triton-PORT.log in the project's runs/serve)",
    )
    parser.add_argument("--verbose", action="store_true", help="print Triton's log as well")
    parser.add_argument(
        "triton_arguments",
        nargs="*",
        metavar="-- TRITON_ARGUMENT",
        help="further arguments of tritonserver",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes, which is how it is meant to end."""
    from ram_triton.repository.repository import Repository

    Repository(arguments.repository).require_manifest()
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    log = arguments.log or LOGS / f"triton-{ports.http}.log"
    server = TritonServer(
        arguments.repository,
        ports,
        log=print if arguments.verbose else lambda line: None,
        log_file=log,
        progress=print,
        arguments=tuple(arguments.triton_arguments),
    )
    print(f"Loading {len(server.models())} models of {short(arguments.repository)}")
    print(f"Triton's log: {short(log)}")
    try:
        with server:
            print(f"Ready: gRPC {server.grpc}, HTTP {server.http}, metrics {server.metrics}")
            print(f"Try: {example(server.grpc)}")
            print("Ctrl-C stops the server.")
            server.wait()
    except KeyboardInterrupt:
        print("ram-triton serve: stopped")
    return 0


def example(server: str) -> str:
    """Return a command that tags a picture of the demo through a server."""
    ram_tag = Path(sys.executable).with_name("ram-tag")
    options = [] if server.endswith(f":{Ports.grpc}") else ["--server", server]
    return shlex.join([short(ram_tag), *options, short(DEMO_IMAGES / "apple.png")])
