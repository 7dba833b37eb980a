"""The asynchronous client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property, partial
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from . import errors, protocol
from .concurrency import async_in_batches, gather_in_order
from .connection import FilePath, Tls, channel_arguments, find_tls_problem, metadata
from .image import Content, ImageLike, are_pixels, content, contents, named
from .tag import Tag


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
        self._image_size: asyncio.Task[int | None] | None = None

    async def tag(
        self,
        image: ImageLike,
        *,
        bgr: bool = False,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
        where: bool = False,
    ) -> list[Tag]:
        """The things in `image`, highest score first; see `RamClient.tag`."""
        settings = protocol.settings(threshold, top_k, exclude, labels, where)
        return (await self._tag([image], bgr, settings))[0]

    async def tag_batch(
        self,
        images: Sequence[ImageLike],
        *,
        bgr: bool = False,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
        where: bool = False,
    ) -> list[list[Tag]]:
        """The tags of each of `images`, sent as one request; see `RamClient.tag_batch`."""
        settings = protocol.settings(threshold, top_k, exclude, labels, where)
        return await self._tag(list(images), bgr, settings)

    async def tag_frames(
        self,
        frames: Iterable[ImageLike] | AsyncIterable[ImageLike],
        *,
        concurrency: int = 8,
        batch: int = 1,
        bgr: bool = False,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
        where: bool = False,
    ) -> AsyncGenerator[list[Tag], None]:
        """The tags of each frame, in the order of the frames; see `RamClient.tag_frames`.

        frames: may be an asynchronous iterator. Another is read in a worker thread.
        """
        settings = protocol.settings(threshold, top_k, exclude, labels, where)

        async def tag(images: list[ImageLike]) -> tuple[list[list[Tag]], errors.RamError | None]:
            try:
                return await self._tag(images, bgr, settings), None
            except errors.RamError as error:
                if len(images) == 1 or not errors.is_of_one_image(error):
                    return [], error
            tags: list[list[Tag]] = []
            for image in images:
                alone, error_of_one = await tag([image])
                if error_of_one:
                    return tags, error_of_one
                tags += alone
            return tags, None

        batches = async_in_batches(frames, batch)
        async with aclosing(gather_in_order(tag, batches, concurrency)) as answers:
            async for found, error in answers:
                for tags in found:
                    yield tags
                if error:
                    raise error

    async def embed(self, image: ImageLike, *, bgr: bool = False) -> protocol.Array:
        """The image's embedding: float32 (D,), D being 512 for the published models."""
        embedding: protocol.Array = (await self.embed_batch([image], bgr=bgr))[0]
        return embedding

    async def embed_batch(
        self, images: Sequence[ImageLike], *, bgr: bool = False
    ) -> protocol.Array:
        """The embeddings of one or more `images`, sent as one request: float32 (B, D)."""
        request = partial(protocol.embedding_request, model=self.model)
        return protocol.read_embeddings(await self._send(list(images), bgr, request))

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

    async def _tag(
        self, images: list[ImageLike], bgr: bool, settings: dict[str, Any]
    ) -> list[list[Tag]]:
        if not images:
            return []
        request = partial(protocol.tag_request, model=self.model, **settings)
        takes_pixels = settings["labels"] is None
        with protocol.asking_for_maps():
            return protocol.read_tags(await self._send(images, bgr, request, takes_pixels))

    async def _send(
        self,
        images: list[ImageLike],
        bgr: bool,
        request: Callable[[Sequence[Content]], dict[str, Any]],
        takes_pixels: bool = True,
    ) -> InferResult:
        """Send images, as pixels if they are; once more if the server has another size by now."""
        as_pixels = bool(images) and takes_pixels and are_pixels(images)
        size = await self._find_image_size() if as_pixels else None
        try:
            return await self._infer(request(await _contents(images, size, bgr)))
        except errors.RamError as error:
            if size is None or not protocol.is_about_pixels(error, self.model):
                raise
        self._image_size = None
        size = await self._find_image_size()
        return await self._infer(request(await _contents(images, size, bgr)))

    async def _find_image_size(self) -> int | None:
        """The side of the model's square, asked once; None if the server takes no pixels."""
        if self._image_size is None:
            self._image_size = asyncio.create_task(self._ask_image_size())
        asking = self._image_size
        try:
            return await asyncio.shield(asking)
        except errors.RamError:
            if self._image_size is asking:
                self._image_size = None
            raise

    async def _ask_image_size(self) -> int | None:
        try:
            metadata = await self._triton.get_model_metadata(
                self.model + protocol.SIZE_SUFFIX,
                headers=self._headers,
                client_timeout=self.timeout,
            )
        except InferenceServerException as error:
            if errors.is_unsupported(error):
                return None
            raise await self._translated(error) from error
        return protocol.read_image_size(metadata)

    async def _infer(self, request: dict[str, Any]) -> InferResult:
        try:
            return await self._triton.infer(
                **request, **protocol.deadline(self.timeout), headers=self._headers
            )
        except InferenceServerException as error:
            raise await self._translated(error) from error

    async def _translated(self, error: InferenceServerException) -> errors.RamError:
        found = errors.from_triton(error, server=self.server, timeout=self.timeout)
        if isinstance(found, errors.Unavailable):
            problem = await asyncio.to_thread(find_tls_problem, self.server, self._tls, str(found))
            return errors.CertificateError(f"{self.server}: {problem}") if problem else found
        return found


async def _contents(
    images: Sequence[ImageLike], image_size: int | None, bgr: bool
) -> list[Content]:
    """`contents`, each image in a worker thread, unless they are as they will be sent."""
    if all(isinstance(image, bytes) for image in images):
        return contents(images, image_size, bgr)
    found = await asyncio.gather(
        *(asyncio.to_thread(content, image, image_size, bgr) for image in images),
        return_exceptions=True,
    )
    sent: list[Content] = []
    for index, each in enumerate(found):
        if isinstance(each, errors.ImageUnreadable):
            raise named(each, index, len(images))
        if isinstance(each, BaseException):
            raise each
        sent.append(each)
    return sent
