"""The application: its routes, behind the guard, and whether Triton tags."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import PIL.Image
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import ASGIApp

from .. import __version__
from ..async_client import AsyncRamClient
from ..errors import RamError
from ..image import encode
from ..serving import Server
from .failures import RETRY_SECONDS, handle
from .guard import Guard
from .photoprism import photoprism_router
from .settings import Settings
from .tags import tags_router
from .wd14 import wd14_router

OPEN_PATHS = ("/health", "/docs", "/openapi.json", "/static-offline-docs")
DESCRIPTION = "Tags of images in English and Chinese, in the formats of several programs."
END_SECONDS = 30  # for what is being worked on
HEALTH_SECONDS = 5.0  # after which a server that does not answer is not ready
FRESH = 1.0  # seconds that an answer is good for: many may ask


class Ready(BaseModel):
    """Triton tags pictures."""

    ready: Literal[True] = True


class NotReady(BaseModel):
    """It does not, and why."""

    ready: Literal[False] = False
    error: str


class Health:
    """Asks on behalf of all who want to know."""

    def __init__(self, server: str) -> None:
        """Connects at the first check."""
        self._client = AsyncRamClient(server, timeout=HEALTH_SECONDS, retries=0)
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


def create_app(settings: Settings) -> ASGIApp:
    """Return the ASGI application; it connects to Triton at the first request."""
    client = AsyncRamClient(settings.server, timeout=settings.timeout)
    health = Health(settings.server)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.close()
        await health.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="RAM",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(HTTPBearer(auto_error=False))],  # for the page: Guard looks at keys
    )
    handle(app)
    app.include_router(tags_router(client))
    app.include_router(photoprism_router(client, settings))
    app.include_router(wd14_router(client, settings))

    @app.get("/health", tags=["health"], response_model=Ready, responses={503: {"model": NotReady}})
    async def whether_triton_tags() -> Ready | JSONResponse:
        """Has Triton tag a small picture, once a second at most."""
        if problem := await health.problem():
            content = NotReady(error=problem).model_dump()
            return JSONResponse(content, 503, {"Retry-After": RETRY_SECONDS})
        return Ready()

    return Guard(app, settings, OPEN_PATHS)


def make_server(settings: Settings) -> Server:
    """Return a server to be run with a socket; what is being worked on at its end is answered."""
    note = " (requests: {url}/docs)"
    return Server(create_app(settings), end_seconds=END_SECONDS, note=note)
