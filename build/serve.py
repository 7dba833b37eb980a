"""Serve the model repository on this machine's CPU until Ctrl-C."""

import argparse
import sys
from pathlib import Path

from ram.repository import Repository, RepositoryError
from triton_server import Ports, ServerError, TritonServer, stop_in_order_on_signals

DEFAULT_REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"


def main() -> int:
    """Read the arguments and serve; returns the exit status."""
    arguments = parse_arguments()
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    server = TritonServer(
        arguments.repository, ports, log=print, arguments=tuple(arguments.triton_arguments)
    )
    stop_in_order_on_signals()
    try:
        require_model(arguments.repository)
        with server:
            print(f"Ready: gRPC {server.grpc}, HTTP {server.http}, metrics {server.metrics}")
            print("Ctrl-C stops the server.", flush=True)
            server.wait()
    except (ServerError, RepositoryError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("serve: stopped")
    return 0


def require_model(repository: Path) -> None:
    """Check that a model was built into the repository.

    Raises:
        ServerError: it was not, or its build was interrupted.
    """
    if Repository(repository).manifest() is None:
        raise ServerError(f"{repository} holds no model: run 'make model' or 'make demo' first")


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="DIR")
    for kind in ("http", "grpc", "metrics"):
        default = getattr(Ports(), kind)
        parser.add_argument(f"--{kind}-port", type=int, default=default, metavar="PORT")
    parser.add_argument("triton_arguments", nargs="*", metavar="-- TRITON_ARGUMENT",
                        help="further arguments of tritonserver")  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
