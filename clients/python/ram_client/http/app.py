"""The application: its routes, behind the guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import ASGIApp

from .. import __version__
from ..async_client import AsyncRamClient
from .failures import RETRY_SECONDS, handle
from .guard import Guard
from .health import Health
from .photoprism import photoprism_router
from .settings import Settings
from .tags import tags_router
from .wd14 import wd14_router

OPEN_PATHS = ("/health", "/docs", "/openapi.json", "/static-offline-docs")
DESCRIPTION = "Tags of images in English and Chinese, in the formats of several programs."


class Ready(BaseModel):
    """Triton tags pictures."""

    ready: Literal[True] = True


class NotReady(BaseModel):
    """It does not, and why."""

    ready: Literal[False] = False
    error: str


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
