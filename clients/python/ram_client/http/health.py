"""Whether Triton tags, found out by having it tag."""

import asyncio
import time

import PIL.Image

from ..async_client import AsyncRamClient
from ..errors import RamError
from ..image import encode

SECONDS = 5.0  # after which a server that does not answer is not ready
FRESH = 1.0  # seconds that an answer is good for: many may ask


class Health:
    """Asks on behalf of all who want to know."""

    def __init__(self, server: str) -> None:
        """Connects at the first check."""
        self._client = AsyncRamClient(server, timeout=SECONDS, retries=0)
        self._picture = encode(PIL.Image.new("RGB", (8, 8)))
        self._one = asyncio.Lock()
        self._checked = -FRESH
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Return why the server does not tag now, or None if it does."""
        async with self._one:
            if time.monotonic() - self._checked >= FRESH:
                try:
                    await self._client.tag(self._picture, top_k=1)
                    self._problem = None
                except RamError as error:
                    self._problem = str(error)
                self._checked = time.monotonic()
            return self._problem

    async def close(self) -> None:
        """Close its connection."""
        await self._client.close()
