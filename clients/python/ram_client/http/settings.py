"""What `ram-http` was started with."""

from dataclasses import dataclass
from typing import Literal

from ..tag import Tag

Language = Literal["en", "zh"]

DEFAULT_PORT = 8080
MAX_BYTES = 64 * 2**20  # as the gateway's limit


@dataclass(frozen=True)
class Settings:
    """Settings of the whole server.

    Attributes:
        server: Triton's gRPC address.
        timeout: seconds; how long a body may take to arrive, and then how long an answer.
        max_bytes: of a request's body.
        concurrency: requests that are worked on at once; the next one gets 503.
        language: of tags in formats that have room for one name.
        keys: one of these must come with a request; anybody may ask if there are none.
    """

    server: str = "localhost:8001"
    timeout: float = 60.0
    max_bytes: int = MAX_BYTES
    concurrency: int = 16
    language: Language = "en"
    keys: tuple[str, ...] = ()


def name_in(language: Language, tag: Tag) -> str:
    """Return a tag's name; a label without a Chinese name keeps its own."""
    return (tag.name_zh if language == "zh" else tag.name) or tag.name
