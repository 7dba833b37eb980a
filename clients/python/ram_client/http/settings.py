"""What `ram-http` was started with, its clients' keys among it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..tag import Tag

Language = Literal["en", "zh"]

KEYS_VARIABLE = "RAM_HTTP_KEYS"


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
    max_bytes: int = 64 * 2**20  # as the gateway's limit
    concurrency: int = 16
    language: Language = "en"
    keys: tuple[str, ...] = ()


def name_in(language: Language, tag: Tag) -> str:
    """Return a tag's name; a label without a Chinese name keeps its own."""
    return (tag.name_zh if language == "zh" else tag.name) or tag.name


def read_keys(file: str | None) -> tuple[str, ...]:
    """Return the keys of a file, one per line, or of RAM_HTTP_KEYS, with commas between them.

    Lines that begin with # are comments. Without file and variable there are no keys.

    Raises:
        ValueError: the file cannot be read, or there is nothing in it; the message is one line.
    """
    if file is None:
        given = os.environ.get(KEYS_VARIABLE)
        if given is None:
            return ()
        source, lines = KEYS_VARIABLE, given.split(",")
    else:
        source = file
        try:
            lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{file}: is not UTF-8") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise ValueError(f"{source}: contains no key")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise ValueError(f"{source}: a key is of printable ASCII, so that a header can carry it")
    return keys
