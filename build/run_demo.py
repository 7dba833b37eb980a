"""Serve a model repository, tag some pictures through gRPC, and stop the server."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ram.repository import Repository, RepositoryError
from triton_server import ServerError, TritonServer, stop_in_order_on_signals

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Read the arguments and show the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=Path, default=HERE / "demo" / "images", metavar="DIR")
    arguments = parser.parse_args()
    stop_in_order_on_signals()
    try:
        manifest = Repository(arguments.repository).manifest()
        if manifest is None:
            raise RepositoryError(f"{arguments.repository} holds no model")
        print("Starting tritonserver on loopback", flush=True)
        with TritonServer(arguments.repository) as server:
            status = tag(server.grpc, arguments.images)
        print("Stopped tritonserver")
    except (ServerError, RepositoryError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted, the server is stopped", file=sys.stderr)
        return 130
    if manifest["note"]:
        print(f"Note: {manifest['note']}")
    return status


def tag(server: str, images: Path) -> int:
    """Run the command line client on a folder; returns its exit status."""
    ram_tag = Path(sys.executable).with_name("ram-tag")
    folder = os.path.relpath(images)  # shorter to read than an absolute path
    command = [str(ram_tag), "--server", server, "--top-k", "5", folder]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
