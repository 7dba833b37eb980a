"""A gateway that ends TLS before a server: what nginx or Envoy are in production."""

import asyncio
import ssl
import threading
from pathlib import Path


class TLSGateway:
    """Listens with TLS on a free port of loopback, and passes plain bytes on to `upstream`.

    certificate: files of the certificate and its key, PEM.
    upstream: "host:port".
    application: what ALPN agrees on: "h2" for gRPC, which insists on it, or "http/1.1".
    """

    def __init__(self, certificate: tuple[Path, Path], upstream: str, application: str):
        self._upstream = upstream.rsplit(":", 1)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*certificate)
        self._context.set_alpn_protocols([application])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "TLSGateway":
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.address = f"localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read until either side ends."""
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass  # the client has gone
    finally:
        writer.close()
