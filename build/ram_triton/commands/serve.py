"""Serve a model repository on this machine's CPU until Ctrl-C."""

import argparse

from ram_triton.arguments import add_ports, add_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to serve")
    add_ports(parser)
    parser.add_argument(
        "triton_arguments",
        nargs="*",
        metavar="-- TRITON_ARGUMENT",
        help="further arguments of tritonserver",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes, which is how it is meant to end."""
    from ram_triton.repository.repository import Repository
    from ram_triton.server import Ports, TritonServer

    Repository(arguments.repository).require_manifest()
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    server = TritonServer(
        arguments.repository, ports, log=print, arguments=tuple(arguments.triton_arguments)
    )
    try:
        with server:
            print(f"Ready: gRPC {server.grpc}, HTTP {server.http}, metrics {server.metrics}")
            print("Ctrl-C stops the server.", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("ram-triton serve: stopped")
    return 0
