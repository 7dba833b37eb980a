"""The server's answer to a picture: asked for, with the time of each step, and shown as HTML."""

import asyncio
import io
import time
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..async_client import AsyncRamClient
from ..connection import explain
from ..errors import ImageUnreadable, InvalidRequest, Unavailable
from ..sinks.overlays import read
from ..sinks.sink import WriteFailed
from ..tag import Tag, overlay

MOST_MAPS = 12  # heat maps that are drawn, about 15 kB each
QUALITY = 80

EMPTY = '<p class="ram-hint">Drop a picture, paste one, or use the camera.</p>'
NOTHING = (
    '<p class="ram-hint">No tag\'s score exceeds its threshold. '
    "Untick the tags' own thresholds, and lower the slider.</p>"
)


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
    try:
        content = await asyncio.to_thread(picture.read_bytes)
    except OSError as error:  # it was dropped long ago
        raise ImageUnreadable("the picture was removed: drop it again") from error
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


def show(answer: Answer) -> str:
    """Return the tags as chips, and below them how long each step took.

    Pointing at a chip, or tapping it, shows where in the picture the tag is.
    """
    maps: list[bytes | None] = [*answer.maps, *[None] * len(answer.tags)]
    chips = "".join(map(_chip, answer.tags, maps))
    tags = f'<ul class="ram-tags">{chips}</ul>' if chips else NOTHING
    steps = "".join(
        f"<dt>{name}</dt><dd>{seconds * 1000:.1f} ms</dd>" for name, seconds in answer.steps.items()
    )
    return f'{tags}<dl class="ram-times">{steps}</dl>'


def show_error(problem: object) -> str:
    """Return a problem as one that screen readers announce."""
    return f'<p class="ram-error" role="alert">{escape(str(problem))}</p>'


def _chip(tag: Tag, drawn: bytes | None) -> str:
    chinese = f' <span lang="zh">{escape(tag.name_zh)}</span>' if tag.name_zh else ""
    unknown = "" if tag.known else ' class="ram-own" title="not in the model\'s own tag list"'
    return (
        f'<li{unknown} tabindex="0" style="--score: {tag.score:.3f}"><b>{escape(tag.name)}</b>'
        f"{chinese} <data>{tag.score:.3f}</data>{_figure(tag, drawn)}</li>"
    )


def _figure(tag: Tag, drawn: bytes | None) -> str:
    if drawn is None:
        return ""
    image = f"data:image/jpeg;base64,{b64encode(drawn).decode()}"
    return f'<figure><img src="{image}" alt="Where: {escape(tag.name)}"></figure>'
