"""Report what is right and wrong with a model repository on this machine, before it is served.

Exit status: 0 nothing is wrong, 1 a warning or something that could not be checked, 2 an error.
"""

import argparse

from ram_triton.arguments import add_ports, add_repository
from ram_triton.repository.layout import PROFILES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_repository(parser, "model repository to look at")
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        help="configs to check (default: gpu if there is a GPU, else cpu)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_ports(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, print, and return the exit status."""
    from ram_triton.doctor.checks import bytes_to_read, choose_profile, examine
    from ram_triton.doctor.report import exit_status, print_json, print_table
    from ram_triton.progress import status_line
    from ram_triton.server import Ports

    root, profile = arguments.repository, arguments.profile or choose_profile()
    ports = Ports.of(arguments)
    with status_line("checking") as show:
        total, read = max(bytes_to_read(root), 1), 0

        def advance(count: int) -> None:
            nonlocal read
            read += count
            show(f"checking, {read / total:.0%} of the files")

        findings = list(examine(root, profile, ports, advance))
    if arguments.json:
        print_json(findings, root, profile)
    else:
        print(f"{root}, profile {profile}")
        print_table(findings)
    return exit_status(findings)
