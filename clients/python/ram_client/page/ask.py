"""A question to the server, and how long each of its steps took."""

import asyncio
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..async_client import AsyncRamClient
from ..connection import explain
from ..errors import InvalidRequest, Unavailable
from ..sinks.overlays import read
from ..sinks.sink import WriteFailed
from ..tag import Tag, overlay

MOST_MAPS = 12  # heat maps that are drawn, about 15 kB each
QUALITY = 80


@dataclass(frozen=True)
class Answer:
    """The tags of a picture.

    Attributes:
        tags: highest score first.
        maps: the picture as JPEG with each tag's heat map, those of the first tags alone; empty
            if the server has none, or the picture cannot be decoded here.
        steps: what was done in turn, and how many seconds each took.
    """

    tags: list[Tag]
    maps: list[bytes]
    steps: dict[str, float]


class _Stopwatch:
    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._begin = time.perf_counter()

    def note(self, step: str) -> None:
        end = time.perf_counter()
        self.steps[step] = end - self._begin
        self._begin = end


async def ask(
    client: AsyncRamClient,
    picture: Path,
    *,
    threshold: float | None,
    top_k: int | None,
    labels: list[str] | None,
) -> Answer:
    """Tag a file, sent as it is; settings as in `RamClient.tag`.

    Raises RamError, with the reason for people if there is no server.
    """
    watch = _Stopwatch()
    content = await asyncio.to_thread(picture.read_bytes)
    watch.note(f"read the file, {len(content):,} bytes")
    try:
        await client.is_ready()  # what a request takes that has nothing to do
        watch.note("a request without a picture")
        tags = await _tag(client, content, threshold=threshold, top_k=top_k, labels=labels)
        watch.note("send, decode, model, answer")
    except Unavailable as error:
        if reason := await explain(client.server):
            raise Unavailable(reason) from error
        raise
    maps = await asyncio.to_thread(_draw, picture, tags[:MOST_MAPS])
    if maps:
        watch.note("draw the heat maps")
    return Answer(tags, maps, watch.steps)


async def _tag(client: AsyncRamClient, content: bytes, **settings: Any) -> list[Tag]:
    """The tags, with heat maps if the server has them."""
    try:
        return await client.tag(content, **settings, where=True)
    except InvalidRequest as error:
        if not str(error).startswith("where: "):
            raise
    return await client.tag(content, **settings)


def _draw(path: Path, tags: list[Tag]) -> list[bytes]:
    heatmaps = [tag.heatmap for tag in tags if tag.heatmap is not None]
    if not heatmaps:
        return []
    try:
        picture = read(path)
    except WriteFailed:  # the server reads what Pillow does not
        return []
    drawn = []
    for heatmap in heatmaps:
        file = io.BytesIO()
        overlay(picture, heatmap).save(file, "JPEG", quality=QUALITY)
        drawn.append(file.getvalue())
    return drawn
