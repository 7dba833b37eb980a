"""The asynchronous client."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from . import errors, protocol
from .channel import channel_arguments
from .image import ImageLike, encode
from .tag import Tag
from .tls import FilePath, Tls, find_problem, metadata


class AsyncRamClient:
    """`RamClient` for asyncio: the same arguments, results and errors, and many calls at once.

    It belongs to the event loop of its first call, and to one thread. Files are read and pictures
    encoded in worker threads.
    """

    def __init__(
        self,
        server: str = "localhost:8001",
        *,
        timeout: float | None = 60.0,
        retries: int = 4,
        model: str = protocol.MODEL,
        credentials: grpc.ChannelCredentials | None = None,
        tls: bool = False,
        tls_ca: FilePath | None = None,
        tls_cert: FilePath | None = None,
        tls_key: FilePath | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        self.server = server
        self.timeout = timeout
        self.model = model
        self._tls = Tls.choose(tls, tls_ca, tls_cert, tls_key)
        self._headers = metadata(headers)
        self._credentials = self._tls.credentials() if self._tls else credentials
        self._channel_arguments = channel_arguments(retries)

    async def tag(
        self,
        image: ImageLike,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
    ) -> list[Tag]:
        """The things in `image`, highest score first; see `RamClient.tag`."""
        (tags,) = await self.tag_batch(
            [image], threshold=threshold, top_k=top_k, exclude=exclude, labels=labels
        )
        return tags

    async def tag_batch(
        self,
        images: Sequence[ImageLike],
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
    ) -> list[list[Tag]]:
        """The tags of each of `images`, sent as one request; see `RamClient.tag_batch`."""
        if not images:
            return []
        request = protocol.tag_request(
            await _encode_all(images),
            model=self.model,
            threshold=threshold,
            top_k=top_k,
            exclude=exclude,
            labels=labels,
        )
        return protocol.read_tags(await self._infer(request))

    async def embed(self, image: ImageLike) -> protocol.Array:
        """The image's embedding: float32 (D,), D being 512 for the published models."""
        embedding: protocol.Array = (await self.embed_batch([image]))[0]
        return embedding

    async def embed_batch(self, images: Sequence[ImageLike]) -> protocol.Array:
        """The embeddings of one or more `images`, sent as one request: float32 (B, D)."""
        request = protocol.embedding_request(await _encode_all(images), model=self.model)
        return protocol.read_embeddings(await self._infer(request))

    async def is_ready(self) -> bool:
        """Whether the server has the model loaded; Unavailable or Timeout if none answers."""
        try:
            return bool(
                await self._triton.is_model_ready(
                    self.model, headers=self._headers, client_timeout=self.timeout
                )
            )
        except InferenceServerException as error:
            raise await self._translated(error) from error

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled, calls after it fail."""
        await self._triton.close()

    async def __aenter__(self) -> "AsyncRamClient":
        """The client itself; leaving the block closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    @cached_property
    def _triton(self) -> InferenceServerClient:
        # On first use and not in __init__: a channel binds to the loop that is running now.
        return InferenceServerClient(
            self.server, creds=self._credentials, channel_args=self._channel_arguments
        )

    async def _infer(self, request: dict[str, Any]) -> InferResult:
        try:
            return await self._triton.infer(
                **request,
                **protocol.deadline(self.timeout),
                headers=self._headers,
            )
        except InferenceServerException as error:
            raise await self._translated(error) from error

    async def _translated(self, error: InferenceServerException) -> errors.RamError:
        found = errors.from_triton(error, server=self.server, timeout=self.timeout)
        if isinstance(found, errors.Unavailable):
            problem = await asyncio.to_thread(find_problem, self.server, self._tls, str(found))
            return errors.CertificateError(f"{self.server}: {problem}") if problem else found
        return found


async def _encode_all(images: Sequence[ImageLike]) -> list[bytes]:
    return await asyncio.gather(*(asyncio.to_thread(encode, image) for image in images))
