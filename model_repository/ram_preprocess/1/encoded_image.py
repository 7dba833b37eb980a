"""Encoded images: how clients send them, their formats, their limits, what is known of each.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import binascii
import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from .request import RequestError, read_parameter

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# An option: see docs/images.md. Of two packages with one interface the first has decoders alone.
HEIC_PACKAGE = next(filter(find_spec, ("pi_heif", "pillow_heif")), None)
if HEIC_PACKAGE:
    FORMATS += ("HEIF",)
SEND = f"send {', '.join(FORMATS)}"
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
# ISO media files begin with their first box's length, `ftyp`, and a brand.
BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIF"),
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"M4V ", b"3gp4", b"3gp5"), "MP4 video"),
    b"qt  ": "QuickTime video",
    b"jp2 ": "JPEG 2000",
    b"crx ": "a camera's raw file",
}
# What people send and is not read, by its first bytes.
FOREIGN = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc": "JPEG XR",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"gimp xcf": "XCF",
    b"icns": "ICNS",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"v/1\1": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE  =": "FITS",
    b"AT&TFORM": "DjVu",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"BPG\xfb": "BPG",
    b"FLIF": "FLIF",
    b"\x93NUMPY": "a numpy file",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "ZIP",
    b"7z\xbc\xaf": "7z",
    b"(\xb5/\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x1aE\xdf\xa3": "WebM or Matroska video",
    b"ID3": "MP3",
    b"OggS": "Ogg",
    b"FUJIFILM": "a camera's raw file",
    b"IIU\0": "a camera's raw file",
    b"IIRO": "a camera's raw file",
    b"version https://git-lfs": "a Git LFS pointer",
    **{b"P%d" % kind: "PNM" for kind in range(1, 8)},
}
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(rb"data:(?P<parameters>[^,]*),(?P<data>.*)", re.S | re.I)
HALF_URL = re.compile(rb"(?:[\w.+-]+/[\w.+-]+(?:;[\w=.-]+)*;)?base64,(?P<data>.*)", re.S | re.I)
ADDRESS = re.compile(rb"(?:https?|ftps?|file|s3|gs|hdfs|blob|www\.)(?::|\w)\S*", re.I)
SUFFIX = rb"\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|jxl|svg|pdf|ico|psd)"
PATH = re.compile(rb"(?:[^\n]{0,1000}" + SUFFIX + rb"|(?:[a-z]:\\|[.~]{0,2}/)[^\n]{1,1000})", re.I)
PYTHON_BYTES = re.compile(rb"b(['\"])(?P<text>[\w+/=-]*)\1")
MARKUP = re.compile(rb"\s*<")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Of a picture that ends early, viewers show what is there. Up to this share may be missing.
MISSING_ROWS = 0.05


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

    def check_size(self, width: int, height: int) -> None:
        """Refuse sizes over the limit.

        Raises:
            ImageError: these are more pixels than `max_pixels`, or none.
        """
        if width <= 0 or height <= 0:
            raise ImageError(f"the image has no pixels: {width} x {height}")
        if width * height > self.max_pixels:
            limit = f"{self.max_pixels} (max_pixels)"
            raise ImageError(f"{width} x {height} pixels are over the limit of {limit}")


@dataclass
class Structure:
    """What is known of an encoded image before it is decoded.

    Attributes:
        format: one of `FORMATS`.
        width: pixels per row of the canvas.
        height: rows.
        encoded: what the decoder gets: the file without what is of no use to it.
        scans: how often a decoder passes all pixels.
        complete: False if the file ends before its pixels do.
        tags: numbers of a TIFF's first directory, by tag.
        place: left, top, width, height of a GIF's first frame on its canvas.
    """

    format: str
    width: int
    height: int
    encoded: bytes
    scans: int = 1
    complete: bool = True
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)
    place: tuple[int, int, int, int] | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the canvas."""
        return self.width * self.height


def damaged(name: str, reason: str = "") -> str:
    """Return the message for a header that cannot be read."""
    article = "an" if name == "AVIF" else "a"
    text = f"it begins like {article} {name}, but its header is truncated or damaged"
    return f"{text} ({reason})" if reason else text


def refuse_missing(name: str, share: float) -> None:
    """Refuse a picture that lacks more than `MISSING_ROWS`.

    Raises:
        ImageError: it does.
    """
    if share > MISSING_ROWS:
        raise ImageError(
            f"the {name} is truncated or damaged (its last rows are missing, {share:.0%} of all)"
        )


def format_of(encoded: bytes) -> str:
    """Return the format that an encoded image's first bytes are of, one of `FORMATS`.

    Raises:
        ImageError: it is of none of them; the message names what it is.
    """
    name = _find_format(encoded)
    if name in FORMATS:
        return name
    raise ImageError(f"this is {name}; {SEND}" if name else NOT_AN_IMAGE)


def _find_format(encoded: bytes) -> str | None:
    """Return the name of what a file's first bytes are of; None if they are of nothing known."""
    if encoded.startswith(b"RIFF") and encoded[8:12] in (b"AVI ", b"WAVE"):
        return {b"AVI ": "AVI video", b"WAVE": "WAV"}[encoded[8:12]]
    for start, name in SIGNATURES.items():
        if encoded.startswith(start):
            return name
    if encoded[4:8] == b"ftyp":
        brands = [encoded[place : place + 4] for place in (8, *range(16, 64, 4))]
        found = [BRANDS[brand] for brand in brands if brand in BRANDS]
        name = found[0] if found else "an ISO media file"
        return "HEIC" if name == "HEIF" and not HEIC_PACKAGE else name
    for start, name in FOREIGN.items():
        if encoded.startswith(start):
            return name
    if encoded[:4] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0") and encoded[12:14] == b"\1\0":
        return "DIB, a BMP without its file header"
    if MARKUP.match(encoded):
        start = encoded[:4096].lower()
        return "SVG" if b"<svg" in start else "HTML" if b"<html" in start else "XML or HTML"
    return None


def unwrap(data: bytes, limits: ImageLimits) -> bytes:
    """Return the encoded image of what was sent: the image, its base64 text or a `data:` URL.

    Raises:
        ImageError: it is empty or too long, or the text cannot be decoded.
    """
    # Percent signs make a data URL three times as long as its image, base64 a third longer.
    if len(data) > 3 * limits.max_bytes + 1000:
        raise ImageError(_too_large(len(data), limits))
    if not data.startswith(tuple(SIGNATURES)) and _find_format(data) is None:
        data = _read_text(data)
    if not data:
        raise ImageError("empty")
    if len(data) > limits.max_bytes:
        raise ImageError(_too_large(len(data), limits))
    return data


def _read_text(data: bytes) -> bytes:
    """Decode text: with quotes, a byte order mark or Python's `b'…'` around it, or base64 twice."""
    text = _bare(data)
    decoded = _decode(text)
    if PATH.fullmatch(text) and _find_format(decoded) is None:  # some paths are base64 too
        raise ImageError(_describe(text))
    if decoded and _find_format(decoded) is None:
        # Some encode what is text already.
        again = _bare(decoded)
        if again[:5].lower() == b"data:" or HALF_URL.fullmatch(again) or again.isascii():
            try:
                inner = _decode(again)
            except ImageError:
                return decoded
            if inner.startswith(tuple(SIGNATURES)) or _find_format(inner):
                return inner
    return decoded


def _bare(data: bytes) -> bytes:
    text = data.removeprefix(BYTE_ORDER_MARK).strip()
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text.decode("utf-16", "replace").encode().strip()
    if match := PYTHON_BYTES.fullmatch(text):
        return match["text"]
    if len(text) > 1 and text[:1] == text[-1:] and text[:1] in b"'\"`":
        text = text[1:-1].strip()
    return text


def _decode(text: bytes) -> bytes:
    if text[:5].lower() == b"data:":
        return _read_data_url(text)
    if match := HALF_URL.fullmatch(text):
        text = match["data"]
    try:
        return _read_base64(text)
    except ImageError:
        raise ImageError(_describe(text)) from None


def _describe(text: bytes) -> str:
    """Return what a text that is not base64 is."""
    if ADDRESS.fullmatch(text):
        return "this is an address, and addresses are not fetched; send the image itself"
    if text[:2] in (b"b'", b'b"'):
        return "this is Python's text of bytes (b'…'); send the bytes themselves, or their base64"
    if text[:1] in (b"{", b"["):
        return "this is JSON; send the image alone, as bytes or base64 text"
    if PATH.fullmatch(text):
        return "this is a path, and files of the server are not read; send the file's contents"
    return NOT_AN_IMAGE


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
    text = text.translate(URL_SAFE).strip()
    if b" " in text and _spaces_were_plus(text):
        text = text.replace(b" ", b"+")
    compact = text.translate(None, b" \t\r\n").rstrip(b"=")
    try:
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ImageError(NOT_AN_IMAGE) from error


def _spaces_were_plus(text: bytes) -> bool:
    """Whether forms have made spaces of plus signs: there is none, and no line of equal length."""
    if b"+" in text or b"\n" in text:
        return False
    lengths = {len(line) for line in text.split(b" ")[:-1]}
    return len(lengths) > 1 or len(text) % 4 == 0


def _too_large(length: int, limits: ImageLimits) -> str:
    return f"{length} bytes are over the limit of {limits.max_bytes} (max_bytes)"
