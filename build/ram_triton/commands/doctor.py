"""Report what is right and wrong with a model repository on this machine, before it is served.

Exit status: 0 nothing is wrong, 1 a warning or something that could not be checked, 2 an error.
"""

import argparse
import sys

from ram_triton.arguments import add_ports, add_repository
from ram_triton.repository.layout import PROFILES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to look at")
    parser.add_argument(
        "--profile", choices=PROFILES, help="default: gpu if there is an NVIDIA GPU, else cpu"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_ports(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, print, and return the exit status."""
    from ram_triton.doctor.checks import bytes_to_read, choose_profile, examine
    from ram_triton.doctor.report import exit_status, print_json, print_table, progress
    from ram_triton.server import Ports

    profile = arguments.profile or choose_profile()
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    try:
        with progress(bytes_to_read(arguments.repository)) as advance:
            findings = list(examine(arguments.repository, profile, ports, advance))
    except OSError as error:
        print(f"doctor: {error.filename}: cannot be read ({error.strerror})", file=sys.stderr)
        return 2
    if arguments.json:
        print_json(findings, str(arguments.repository), profile)
    else:
        print(f"{arguments.repository}, profile {profile}")
        print_table(findings)
    return exit_status(findings)
