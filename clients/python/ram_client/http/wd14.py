"""The format of the WD14 taggers for Stable Diffusion's web interface: `/tagger/v1/interrogate`."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ..async_client import AsyncRamClient
from .failures import WD14, Refused
from .settings import Language, Settings, name_in

Scores = dict[str, float]


class InterrogateRequest(BaseModel):
    """A picture. Other fields are ignored."""

    image: str = Field(description="base64 text or `data:` URL")
    model: str = Field("", description="any: there is one model")
    threshold: float | None = Field(None, description="0 to 1, instead of each tag's own")
    queue: str | None = Field(None, description="must be empty; newer callers send it")
    name_in_queue: str | None = Field(None, description="must be empty")


class InterrogateAnswer(BaseModel):
    """Scores by tag; for callers that send `queue`, under `tag`, beside an empty `rating`."""

    caption: Scores | dict[str, Scores]


class Interrogators(BaseModel):
    """Names for `model`."""

    models: list[str]


def wd14_router(client: AsyncRamClient, settings: Settings) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix=WD14.rstrip("/"), tags=["WD14"])

    @router.post("/interrogate", summary="Tags of a picture")
    async def interrogate(
        body: InterrogateRequest,
        language: Annotated[Language | None, Query(description="of the tags")] = None,
    ) -> InterrogateAnswer:
        """Tags and their scores, highest first. Spaces in tags stay spaces."""
        if body.queue or body.name_in_queue:
            raise Refused(400, "queue: there are no queues, leave it and name_in_queue empty")
        tags = await client.tag(body.image.encode(), threshold=body.threshold)
        scores = {name_in(language or settings.language, tag): tag.score for tag in reversed(tags)}
        caption = dict(reversed(scores.items()))  # of two tags with one name, the better score
        if body.queue is None and body.name_in_queue is None:
            return InterrogateAnswer(caption=caption)
        return InterrogateAnswer(caption={"tag": caption, "rating": {}})

    @router.get("/interrogators", summary="The models")
    async def interrogators() -> Interrogators:
        """The one that there is."""
        return Interrogators(models=[client.model])

    @router.post("/unload-interrogators", summary="Does nothing")
    async def unload() -> str:
        """Some callers want to free memory; Triton's stays loaded."""
        return "Successfully unload 0 model(s)"

    return router
