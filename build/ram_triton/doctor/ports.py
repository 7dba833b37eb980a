"""Ports: free for the server that is to be started."""

from collections.abc import Iterator

from ram_triton.doctor.finding import Finding, error, fine
from ram_triton.server import Ports

SUBJECT = "ports"


def check_ports(ports: Ports) -> Iterator[Finding]:
    """Look whether somebody listens on the server's ports already."""
    numbers = {name: getattr(ports, name) for name in ("http", "grpc", "metrics")}
    taken = ports.taken()
    for name, number in numbers.items():
        if number in taken:
            yield error(
                SUBJECT,
                f"{number} ({name}) is taken",
                f"stop what listens there ('ss -ltnp sport = :{number}' names it), or give the "
                f"server another: --{name}-port",
            )
    if not taken:
        yield fine(SUBJECT, f"{', '.join(map(str, numbers.values()))} are free")
