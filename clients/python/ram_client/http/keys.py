"""Keys of clients: where they come from, and whether a request has one."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

KEYS_VARIABLE = "RAM_HTTP_KEYS"


class KeysError(ValueError):
    """Keys cannot be read; the message is one line."""


def read_keys(file: str | None) -> tuple[str, ...]:
    """Return the keys of a file, one per line, or of RAM_HTTP_KEYS, with commas between them.

    Lines that begin with # are comments. Without file and variable there are no keys.

    Raises:
        KeysError: the file cannot be read, or there is nothing in it.
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
            raise KeysError(f"{file}: {error.strerror}") from error
        except ValueError as error:
            raise KeysError(f"{file}: is not UTF-8") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise KeysError(f"{source}: contains no key")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise KeysError(f"{source}: a key is of printable ASCII, so that a header can carry it")
    return keys


class Keys:
    """Compares what a request brings with all keys, in a time that does not depend on either."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Keeps digests alone."""
        self._digests = [_digest(key) for key in keys]

    def accept(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request with these headers (names in lower case) may be answered."""
        if not self._digests:
            return True
        given = _digest(_given(headers))
        return any([hmac.compare_digest(given, known) for known in self._digests])


def _given(headers: Mapping[str, str]) -> str:
    """Return the key as a bearer, as a basic password (WD14), or as it is."""
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
