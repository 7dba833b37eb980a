"""Serve a model repository, tag some pictures through gRPC, and stop the server."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ram_triton.repository.layout import DEMO_IMAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[DEMO_IMAGES / "twemoji", DEMO_IMAGES],
        metavar="DIR",
        help="folders of pictures to tag (default: the demo's)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the demo; returns the client's exit status."""
    from ram_triton.repository.repository import Repository
    from ram_triton.server import TritonServer

    manifest = Repository(arguments.repository).require_manifest()
    print("Starting tritonserver on loopback", flush=True)
    with TritonServer(arguments.repository) as server:
        status = tag(server.grpc, arguments.images)
    print("Stopped tritonserver")
    if manifest["note"]:
        print(f"Note: {manifest['note']}")
    return status


def tag(server: str, images: list[Path]) -> int:
    """Run the command line client on folders; returns its exit status."""
    ram_tag = Path(sys.executable).with_name("ram-tag")
    folders = map(os.path.relpath, images)  # shorter to read than absolute paths
    command = [str(ram_tag), "--server", server, "--top-k", "5", *folders]
    return subprocess.run(command, check=False).returncode
