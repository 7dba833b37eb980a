"""Encoded images as clients send them: bytes, base64 text or a `data:` URL, within limits.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import binascii
import re
from dataclasses import dataclass

from .request import RequestError, read_parameter

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
NOT_AN_IMAGE = f"not an image of a known format ({', '.join(FORMATS)}), as bytes or base64 text"
# The first bytes of encoded images; an image's base64 text cannot begin like this.
SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(rb"data:(?P<parameters>[^,]*),(?P<data>.*)", re.S | re.I)


class ImageError(RequestError):
    """An image cannot be used; the message gives the reason in one line."""


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is accepted.

    Attributes:
        max_bytes: length of the encoded image.
        max_pixels: width times height, as its header states them.
    """

    max_bytes: int
    max_pixels: int

    @classmethod
    def read(cls, model_config: str) -> "ImageLimits":
        """Read the parameters of these names; see `read_parameter`."""
        return cls(
            **{name: read_parameter(model_config, name, int) for name in cls.__annotations__}
        )


def format_of(encoded: bytes) -> str:
    """Return the format that an encoded image's first bytes are of, one of `FORMATS`.

    Raises:
        ImageError: it is of none of them.
    """
    for start, name in SIGNATURES.items():
        if encoded.startswith(start):
            return name
    raise ImageError(NOT_AN_IMAGE)


def unwrap(data: bytes, limits: ImageLimits) -> bytes:
    """Return the encoded image of what was sent: the image, its base64 text or a `data:` URL.

    Raises:
        ImageError: it is empty or too long, or the text cannot be decoded.
    """
    # Percent signs make a data URL three times as long as its image, base64 a third longer.
    if len(data) > 3 * limits.max_bytes + 1000:
        raise ImageError(_too_large(len(data), limits))
    if not data.startswith(tuple(SIGNATURES)):
        text = data.strip()
        data = _read_data_url(text) if text[:5].lower() == b"data:" else _read_base64(text)
    if not data:
        raise ImageError("empty")
    if len(data) > limits.max_bytes:
        raise ImageError(_too_large(len(data), limits))
    return data


def _read_data_url(url: bytes) -> bytes:
    """Return the data of a `data:` URL (RFC 2397)."""
    match = DATA_URL.fullmatch(url)
    if match is None:
        raise ImageError("a data: URL without a comma before its data")
    # Percent-encoding is quoted-printable with another sign, which has a decoder in C: urllib's
    # takes 200 bytes of memory per byte.
    quoted = match["data"].replace(b"=", b"=3D").replace(b"%", b"=")
    data = binascii.a2b_qp(quoted)
    parameters = match["parameters"].lower().replace(b" ", b"").split(b";")
    return _read_base64(data) if b"base64" in parameters[1:] else data


def _read_base64(text: bytes) -> bytes:
    """Decode base64, in the standard or the URL-safe alphabet, with or without padding."""
    compact = text.translate(URL_SAFE, b" \t\r\n").rstrip(b"=")
    try:
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ImageError(NOT_AN_IMAGE) from error


def _too_large(length: int, limits: ImageLimits) -> str:
    return f"{length} bytes are over the limit of {limits.max_bytes} (max_bytes)"
