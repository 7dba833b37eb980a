"""What the page shows of an answer, as HTML: everything that came from elsewhere is escaped."""

from base64 import b64encode
from html import escape

from ..tag import Tag
from .ask import Answer

EMPTY = '<p class="ram-hint">Drop a picture, paste one, or use the camera.</p>'
NOTHING = (
    '<p class="ram-hint">No tag\'s score exceeds its threshold. '
    "Untick the tags' own thresholds, and lower the slider.</p>"
)


def show(answer: Answer) -> str:
    """Return the tags as chips, and below them how long each step took.

    Pointing at a chip, or tapping it, shows where in the picture the tag is.
    """
    maps: list[bytes | None] = [*answer.maps, *[None] * len(answer.tags)]
    chips = "".join(map(_chip, answer.tags, maps))
    tags = f'<ul class="ram-tags">{chips}</ul>' if chips else NOTHING
    return f"{tags}{_times(answer)}"


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


def _times(answer: Answer) -> str:
    steps = "".join(
        f"<dt>{name}</dt><dd>{seconds * 1000:.1f} ms</dd>" for name, seconds in answer.steps.items()
    )
    return f'<dl class="ram-times">{steps}</dl>'
