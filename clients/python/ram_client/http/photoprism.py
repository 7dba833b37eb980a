"""PhotoPrism's format for labels from a service: `POST /api/v1/vision/labels`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from .. import __version__
from ..async_client import AsyncRamClient
from ..tag import Tag
from .failures import PHOTOPRISM, Refused
from .settings import Language, Settings, name_in

SOURCE = "image"  # PhotoPrism's word for labels that come from the picture's content


class LabelsRequest(BaseModel):
    """A picture: as one thumbnail, or as several that cover it. Other fields are ignored."""

    id: str = ""
    model: str = ""
    images: list[str] = Field([], description="`data:` URLs")
    url: str = Field("", description="refused: addresses are not fetched")


class Label(BaseModel):
    """A tag."""

    name: str
    source: str = SOURCE
    confidence: float = Field(description="the tag's score, 0 to 1")
    topicality: float = Field(description="the same")
    categories: list[str] = []


class LabelModel(BaseModel):
    """What found them."""

    type: Literal["labels"] = "labels"
    name: str
    version: str


class LabelResult(BaseModel):
    """The labels, highest confidence first."""

    labels: list[Label]


class LabelsAnswer(BaseModel):
    """Labels of the request with this id."""

    id: str
    code: Literal[200] = 200
    model: LabelModel
    result: LabelResult


def photoprism_router(client: AsyncRamClient, settings: Settings) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix=PHOTOPRISM.rstrip("/"), tags=["PhotoPrism"])

    @router.post("/labels", summary="Labels of a picture")
    async def find_labels(
        request: Request,
        body: LabelsRequest,
        language: Annotated[Language | None, Query(description="of the labels")] = None,
        threshold: float | None = None,
        top_k: int | None = None,
    ) -> LabelsAnswer:
        """Tags as labels. PhotoPrism reads an answer without labels as an error, so it is one."""
        request.state.id = body.id
        if body.url:
            raise Refused(400, "url: addresses are not fetched, send images as data: URLs")
        if not body.images:
            raise Refused(400, "images: is empty")
        found = await client.tag_batch(
            [image.encode() for image in body.images], threshold=threshold
        )
        tags = merge(found)[: top_k or None]
        if not tags:
            raise Refused(404, "no result: the score of each tag is below its threshold")
        labels = [
            Label(
                name=name_in(language or settings.language, tag),
                confidence=tag.score,
                topicality=tag.score,
            )
            for tag in tags
        ]
        return LabelsAnswer(
            id=body.id,
            model=LabelModel(name=client.model, version=__version__),
            result=LabelResult(labels=labels),
        )

    return router


def merge(found: list[list[Tag]]) -> list[Tag]:
    """Return the tags of a picture's parts as the picture's: each with its largest score."""
    best: dict[int, Tag] = {}
    for tag in (tag for tags in found for tag in tags):
        if tag.id not in best or best[tag.id].score < tag.score:
            best[tag.id] = tag
    return sorted(best.values(), key=lambda tag: -tag.score)
