"""What is wrong with a server's address."""

import asyncio

from .arguments import SERVER_VARIABLE

PROBE_SECONDS = 10.0


async def explain(server: str) -> str | None:
    """Return what is wrong with the address of a server that gRPC cannot reach; None if unknown."""
    host, _, port = server.rpartition(":")
    if not port.isdecimal():
        return None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            start = await reader.read(5)
            writer.close()
    except TimeoutError:
        return None
    except OSError:
        return (
            f"no server at {server}: start one with 'make serve', or name it with --server or "
            f"{SERVER_VARIABLE}"
        )
    if start != b"HTTP/":
        return None
    return f"{server} is an HTTP port; gRPC is usually one higher: --server {host}:{int(port) + 1}"
