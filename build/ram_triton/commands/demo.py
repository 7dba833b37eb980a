"""Serve the demo's model, tag its pictures through gRPC, and stop the server."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ram_triton.files import short
from ram_triton.repository.layout import DEMO_IMAGES, PROJECT

REPOSITORY = PROJECT / "runs" / "demo" / "model_repository"
LOG = REPOSITORY.with_name("triton.log")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=REPOSITORY,
        metavar="DIR",
        help="model repository to serve (default: runs/demo/model_repository)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[DEMO_IMAGES / "twemoji", DEMO_IMAGES],
        metavar="DIR",
        help="folders of pictures to tag (default: the demo's)",
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="only install the demo's model into the repository, and serve nothing",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the demo; returns the client's exit status."""
    if arguments.install:
        install(arguments.repository)
        return 0
    from ram_triton.repository.repository import Repository
    from ram_triton.server import TritonServer

    manifest = Repository(arguments.repository).require_manifest()
    print("Starting tritonserver on loopback")
    with TritonServer(arguments.repository, log_file=LOG, progress=print) as server:
        status = tag(server.grpc, arguments.images)
    print("Stopped tritonserver")
    if manifest["note"]:
        print(f"Note: {manifest['note']}")
    return status


def install(repository: Path) -> None:
    """Install the demo's model, and print what it is."""
    from demo import ready_graphs

    manifest = ready_graphs.install(repository)
    variant = manifest["variant"]
    print(
        f"{short(repository)}: installed the demo's model, {variant['backbone']} at "
        f"{variant['image_size']} px with {variant['num_tags']} tags"
    )


def tag(server: str, images: list[Path]) -> int:
    """Run the command line client on folders; returns its exit status."""
    ram_tag = Path(sys.executable).with_name("ram-tag")
    folders = map(os.path.relpath, images)  # shorter to read than absolute paths
    command = [str(ram_tag), "--server", server, "--top-k", "5", *folders]
    return subprocess.run(command, check=False).returncode
