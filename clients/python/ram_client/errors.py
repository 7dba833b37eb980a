"""What can go wrong, as exceptions.

RamError
├── ImageUnreadable    a file cannot be read, or a picture cannot be encoded; nothing was sent
├── InvalidRequest     the request is wrong: no image, bad threshold, batch too large, …
├── ModelNotFound      the server answers, but serves no model of this name
├── AccessDenied       the server, or a gateway before it, wants a header that names a key
├── CertificateError   a certificate does not fit, cannot be read, or one side does not use TLS
├── Unavailable        no connection, a full queue, or a model not loaded, after all retries
├── Timeout            no answer within the client's timeout
└── ServerError        anything else the server reports
"""

import re
from importlib.metadata import PackageNotFoundError, distribution

from tritonclient.utils import InferenceServerException


def installing(extra: str) -> str:
    """Return the command that installs an extra of this package, for messages.

    By its name pip only finds it if it is installed as such: the project's .venv has it as a part.
    """
    try:
        distribution("ram-client")
    except PackageNotFoundError:
        return f"pip install './clients/python[{extra}]'"
    return f"pip install 'ram-client[{extra}]'"


def reason_of(error: BaseException) -> str:
    """Return what an exception reports, on one line of valid text, without an OSError's path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())


class RamError(Exception):
    """Base of all exceptions of this package."""


class ImageUnreadable(RamError):
    """A local file cannot be read, or a picture cannot be encoded; nothing was sent."""


class InvalidRequest(RamError):
    """The request is wrong; the message names the input, as in "image: cannot be decoded"."""


class ModelNotFound(RamError):
    """The server answers, but serves no model of this name."""


class AccessDenied(RamError):
    """The server, or a gateway before it, wants a header that names a key."""


class CertificateError(RamError):
    """A certificate does not fit or cannot be read, or only one of the two sides uses TLS."""


class Unavailable(RamError):
    """No connection, a full queue, or a model that is not loaded, after all retries."""


class Timeout(RamError):
    """The server gave no answer within the client's timeout."""


class ServerError(RamError):
    """The server failed in a way that no other exception describes."""


_BY_STATUS = {
    "StatusCode.INVALID_ARGUMENT": InvalidRequest,
    "StatusCode.NOT_FOUND": ModelNotFound,
    "StatusCode.UNAVAILABLE": Unavailable,
    "StatusCode.DEADLINE_EXCEEDED": Timeout,
    "StatusCode.UNAUTHENTICATED": AccessDenied,
    "StatusCode.PERMISSION_DENIED": AccessDenied,
}

_RESTRICTED = "protocol is restricted"  # in Triton's UNAVAILABLE for a request without the key
# What Triton puts before a message of its own or of a model; requests of this client carry no id.
_PREFIX = re.compile(r"^(\[request id: [^\]]*\] |in ensemble '[^']*', )*")
_NOTE = " NOTE: "  # behind a wrong shape: on the writing of configs


def is_unsupported(error: InferenceServerException) -> bool:
    """Whether the server, or what is before it, does not answer this kind of call at all."""
    unsupported = ("NOT_FOUND", "UNIMPLEMENTED", "PERMISSION_DENIED")
    return error.status() in [f"StatusCode.{name}" for name in unsupported]


def is_of_one_image(error: RamError) -> bool:
    """Whether a request with several images fails because of one of them."""
    named = isinstance(error, InvalidRequest) and str(error).startswith("image[")
    return named or isinstance(error, ImageUnreadable)


def from_triton(error: InferenceServerException, *, server: str, timeout: float | None) -> RamError:
    """Translate tritonclient's exception.

    `server` and `timeout` (seconds) go into the messages about reaching the server, which name
    neither by themselves.
    """
    message = _PREFIX.sub("", error.message() or "no message").partition(_NOTE)[0]
    kind = _BY_STATUS.get(error.status(), ServerError)
    if _RESTRICTED in message:
        kind = AccessDenied
    if kind is Timeout:
        return Timeout(f"{server}: no answer within {timeout} s")
    if kind in (AccessDenied, Unavailable):
        return kind(f"{server}: {message}")
    return kind(message)
