"""Say what is right and wrong with a model repository on this machine, before it is served.

Exit status: 0 nothing is wrong, 1 a warning or something that could not be looked at, 2 an error.
"""

import argparse
import sys
from pathlib import Path

from doctoring.examination import bytes_to_read, choose_profile, examine
from doctoring.inspected import PROFILES
from doctoring.report import exit_status, print_json, print_table, progress
from triton_server import Ports

DEFAULT_REPOSITORY = Path(__file__).resolve().parents[1] / "model_repository"


def main() -> int:
    """Look, print, and return the exit status."""
    arguments = parse_arguments()
    profile = arguments.profile or choose_profile()
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    try:
        with progress(bytes_to_read(arguments.repository)) as advance:
            findings = list(examine(arguments.repository, profile, ports, advance))
    except OSError as error:
        print(f"doctor: {error.filename}: can't be read ({error.strerror})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("doctor: interrupted", file=sys.stderr)
        return 130
    if arguments.json:
        print_json(findings, str(arguments.repository), profile)
    else:
        print(f"{arguments.repository}, profile {profile}")
        print_table(findings)
    return exit_status(findings)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="DIR")
    add("--profile", choices=PROFILES, help="default: gpu where there is an NVIDIA GPU, else cpu")
    add("--json", action="store_true", help="print JSON instead of a table")
    for kind in ("http", "grpc", "metrics"):
        add(f"--{kind}-port", type=port, default=getattr(Ports(), kind), metavar="PORT")
    return parser.parse_args()


def port(text: str) -> int:
    """Read a port's number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no port: 1 to 65535")


if __name__ == "__main__":
    sys.exit(main())
