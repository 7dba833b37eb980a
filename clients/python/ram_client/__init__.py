"""Tag images with a Recognize Anything Model served by Triton Inference Server."""

from .async_client import AsyncRamClient
from .client import RamClient
from .errors import (
    AccessDenied,
    CertificateError,
    ImageUnreadable,
    InvalidRequest,
    ModelNotFound,
    RamError,
    ServerError,
    Timeout,
    Unavailable,
)
from .image import ImageLike
from .tag import Tag

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AsyncRamClient",
    "CertificateError",
    "ImageLike",
    "ImageUnreadable",
    "InvalidRequest",
    "ModelNotFound",
    "RamClient",
    "RamError",
    "ServerError",
    "Tag",
    "Timeout",
    "Unavailable",
]
