"""The project's own format: `POST /v1/tags`, as JSON or as a form with files."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from ..async_client import AsyncRamClient
from .failures import Refused

MOST_IMAGES = 32  # of a batch that Triton takes
MOST_FIELDS = 6000  # labels and names to exclude come one per field
FIELD_BYTES = 64 * 2**20

Names = Annotated[
    list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class TagOptions(BaseModel):
    """What may be said about all images of a request."""

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = Field(
        None, description="the score a tag must exceed, 0 to 1, instead of each tag's own"
    )
    top_k: int | None = Field(None, description="the best of them, at most this many")
    exclude: Names = Field(None, description="tags to leave out, by English or Chinese name")
    labels: Names = Field(None, description="look for these tags instead of the model's own")


class TagsRequest(TagOptions):
    """One image or several, as base64 text or `data:` URL."""

    image: str | None = None
    images: list[str] | None = Field(None, max_length=MOST_IMAGES)


class TagsForm(TagOptions):
    """One file or several; the fields `exclude` and `labels` may be repeated."""

    image: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]]


class FoundTag(BaseModel):
    """A tag of an image."""

    name: str
    name_zh: str = Field(description="empty if a label has none")
    score: float = Field(description="0 to 1")
    id: int = Field(description="line in the tag list, or position in `labels`, from 0")
    known: bool = Field(description="whether it is in the model's own tag list")


class TaggedImage(BaseModel):
    """An image of the request."""

    file: str | None = Field(description="the name that came with a file")
    tags: list[FoundTag] = Field(description="highest score first")


class TagsAnswer(BaseModel):
    """The images in the order of the request."""

    images: list[TaggedImage]


def tags_router(client: AsyncRamClient) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/v1", tags=["tags"])
    content = {
        kind: {"schema": model.model_json_schema()}
        for kind, model in (("application/json", TagsRequest), ("multipart/form-data", TagsForm))
    }

    @router.post(
        "/tags",
        summary="Tag one image or several",
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    async def tag_images(request: Request) -> TagsAnswer:
        """The things in images, in English and Chinese.

        A bad image fails the request; the message names it by its position, from 0.
        """
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            async with request.form(
                max_files=MOST_IMAGES, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES
            ) as form:
                files, images, options = await _read_form(form)
        else:
            body = TagsRequest.model_validate_json(await request.body())
            given = [] if body.image is None else [body.image]
            images = [image.encode() for image in given + (body.images or [])]
            files, options = [None] * len(images), body
        if not images:
            raise Refused(400, "image: is missing")
        found = await client.tag_batch(
            images,
            threshold=options.threshold,
            top_k=options.top_k,
            exclude=options.exclude,
            labels=options.labels,
        )
        return TagsAnswer(
            images=[
                TaggedImage(
                    file=file,
                    tags=[FoundTag.model_validate(tag, from_attributes=True) for tag in tags],
                )
                for file, tags in zip(files, found, strict=True)
            ]
        )

    return router


async def _read_form(form: FormData) -> tuple[list[str | None], list[bytes], TagOptions]:
    """Return the files' names, the images, and what else there is."""
    files: list[str | None] = []
    images: list[bytes] = []
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append(value.filename)
            images.append(await value.read())
        elif name in ("image", "images"):
            files.append(None)
            images.append(value.encode())
        elif name in ("exclude", "labels"):
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    return files, images, TagOptions.model_validate(fields)
