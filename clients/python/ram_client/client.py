"""The synchronous client."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

from . import errors, protocol
from .concurrency import in_batches, run_in_order
from .connection import FilePath, Tls, channel_arguments, find_tls_problem, metadata
from .image import Content, ImageLike, are_pixels, contents
from .tag import Tag


class RamClient:
    """Tags images over one gRPC connection; may be shared between threads.

    server: "host:port" of Triton's gRPC endpoint. The connection is made on first use.
    timeout: seconds a call may take, retries included; None waits without limit.
    retries: 0..4; how often a call that ended in UNAVAILABLE is repeated (no connection, a full
        queue), after 0.2 s, 0.4 s, 0.8 s, 1.6 s, each give or take a fifth. All calls to a server
        share a budget, so that a server that stays full is not asked many times over.
    model: the name the ensemble is served under.
    tls: whether to use TLS; so does naming any of the next three, which are PEM files.
    tls_ca: the certificates to trust, by default those that gRPC comes with.
    tls_cert, tls_key: the client's own, for a server that asks for one (mTLS).
    credentials: gRPC's own, for what these cannot express.
    headers: sent with each call, such as the key that a gateway wants.

    All calls raise the exceptions of `ram_client.errors`, each of them a RamError.
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
        self._image_size: int | None = None
        self._is_size_known = False
        self._triton = InferenceServerClient(
            server,
            creds=self._tls.credentials() if self._tls else credentials,
            channel_args=channel_arguments(retries),
        )

    def tag(
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
        """The things in `image`, highest score first; an empty list if there is nothing.

        image: a path, the bytes of an encoded image (or its base64 or data: URL text, as bytes), a
            Pillow image, or an array of pixels: height x width x 3 uint8, RGB, numpy's or a tensor
            in the computer's own memory. Arrays and Pillow images are squashed here to the model's
            square, as the server does it, and sent as pixels. As PNG, several times a JPEG's size,
            go Pillow images with transparency or 16-bit greys, and all if there are `labels`, or
            if the server has no model for pixels.
        bgr: whether the channels of arrays are blue, green, red, as OpenCV's; other images are
            what they are.
        threshold: in [0, 1], the score a tag must exceed; replaces the tags' own thresholds.
        top_k: maximum number of tags; 0 means no limit.
        exclude: tags to leave out, by English or Chinese name.
        labels: look only for these, by name; the server refuses names that neither its tag list
            nor its text encoder, if it has one, knows.
        where: whether to find out where in the image each of them is: `Tag.heatmap`, `Tag.box`.
        """
        settings = protocol.settings(threshold, top_k, exclude, labels, where)
        return self._tag([image], bgr, settings, self._infer)[0]

    def tag_batch(
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
        """The tags of each of `images`, sent as one request and settings as in `tag`.

        One bad image fails the whole request, and so do more images than the server's largest batch
        (InvalidRequest). If there are files, or bytes, among the images, all are sent encoded,
        arrays as PNG.
        """
        settings = protocol.settings(threshold, top_k, exclude, labels, where)
        return self._tag(list(images), bgr, settings, self._infer)

    def tag_frames(
        self,
        frames: Iterable[ImageLike],
        *,
        concurrency: int = 8,
        batch: int = 1,
        bgr: bool = False,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
        where: bool = False,
    ) -> Generator[list[Tag], None, None]:
        """The tags of each frame, in the order of the frames; settings as in `tag`.

        frames: of a video, a camera, a data loader: read in the caller's thread, and no further
            ahead than `concurrency` requests need.
        concurrency: requests in flight at once.
        batch: frames per request. More than one is more throughput, at most the server's largest
            batch (32); a result then waits for the frames that complete its batch.

        An error is raised in its turn, after the tags of the frames before it. Closing the
        generator cancels the requests in flight.
        """
        settings = protocol.settings(threshold, top_k, exclude, labels, where)
        calls = _Calls(self._triton)

        def infer(request: dict[str, Any]) -> InferResult:
            return self._infer(request, calls.infer)

        def tag(images: list[ImageLike]) -> tuple[list[list[Tag]], errors.RamError | None]:
            """The tags of the frames before the first bad one, and its error."""
            try:
                return self._tag(images, bgr, settings, infer), None
            except errors.RamError as error:
                if len(images) == 1 or not errors.is_of_one_image(error):
                    return [], error
            tags: list[list[Tag]] = []
            for image in images:
                alone, error_of_one = tag([image])
                if error_of_one:
                    return tags, error_of_one
                tags += alone
            return tags, None

        def sized() -> Iterator[ImageLike]:
            """The frames; the size that arrays need is asked here, where Ctrl-C ends the call."""
            for frame in frames:
                if settings["labels"] is None and are_pixels([frame]):
                    self._find_image_size()
                yield frame

        batches = in_batches(sized(), batch)
        with closing(run_in_order(tag, batches, concurrency, calls.cancel)) as answers:
            for tags, error in answers:
                yield from tags
                if error:
                    raise error

    def embed(self, image: ImageLike, *, bgr: bool = False) -> protocol.Array:
        """The image's embedding: float32 (D,), D being 512 for the published models."""
        embedding: protocol.Array = self.embed_batch([image], bgr=bgr)[0]
        return embedding

    def embed_batch(self, images: Sequence[ImageLike], *, bgr: bool = False) -> protocol.Array:
        """The embeddings of one or more `images`, sent as one request: float32 (B, D)."""
        request = partial(protocol.embedding_request, model=self.model)
        return protocol.read_embeddings(self._send(list(images), bgr, request, self._infer))

    def is_ready(self) -> bool:
        """Whether the server has the model loaded; Unavailable or Timeout if none answers."""
        try:
            return bool(
                self._triton.is_model_ready(
                    self.model, headers=self._headers, client_timeout=self.timeout
                )
            )
        except InferenceServerException as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Close the connection; calls after it fail."""
        self._triton.close()

    def __enter__(self) -> "RamClient":
        """The client itself; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def _tag(
        self,
        images: list[ImageLike],
        bgr: bool,
        settings: dict[str, Any],
        infer: Callable[[dict[str, Any]], InferResult],
    ) -> list[list[Tag]]:
        if not images:
            return []
        request = partial(protocol.tag_request, model=self.model, **settings)
        takes_pixels = settings["labels"] is None
        with protocol.asking_for_maps():
            return protocol.read_tags(self._send(images, bgr, request, infer, takes_pixels))

    def _send(
        self,
        images: list[ImageLike],
        bgr: bool,
        request: Callable[[Sequence[Content]], dict[str, Any]],
        infer: Callable[[dict[str, Any]], InferResult],
        takes_pixels: bool = True,
    ) -> InferResult:
        """Send images, as pixels if they are; once more if the server has another size by now."""
        as_pixels = bool(images) and takes_pixels and are_pixels(images)
        size = self._find_image_size() if as_pixels else None
        try:
            return infer(request(contents(images, size, bgr)))
        except errors.RamError as error:
            if size is None or not protocol.is_about_pixels(error, self.model):
                raise
        self._is_size_known = False
        return infer(request(contents(images, self._find_image_size(), bgr)))

    def _find_image_size(self) -> int | None:
        """The side of the model's square, asked once; None if the server takes no pixels."""
        if not self._is_size_known:  # no lock: threads would wait for each other's timeouts
            try:
                metadata = self._triton.get_model_metadata(
                    self.model + protocol.SIZE_SUFFIX,
                    headers=self._headers,
                    client_timeout=self.timeout,
                )
                self._image_size = protocol.read_image_size(metadata)
            except InferenceServerException as error:
                if not errors.is_unsupported(error):
                    raise self._translated(error) from error
                self._image_size = None
            self._is_size_known = True
        return self._image_size

    def _infer(
        self, request: dict[str, Any], infer: Callable[..., InferResult] | None = None
    ) -> InferResult:
        try:
            return (infer or self._triton.infer)(
                **request, **protocol.deadline(self.timeout), headers=self._headers
            )
        except InferenceServerException as error:
            raise self._translated(error) from error

    def _translated(self, error: InferenceServerException) -> errors.RamError:
        found = errors.from_triton(error, server=self.server, timeout=self.timeout)
        if isinstance(found, errors.Unavailable):
            problem = find_tls_problem(self.server, self._tls, str(found))
            return errors.CertificateError(f"{self.server}: {problem}") if problem else found
        return found


class _Calls:
    """Calls that another thread can cancel."""

    def __init__(self, triton: InferenceServerClient):
        self._triton = triton
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._is_over = False

    def infer(self, **request: Any) -> InferResult:
        """`InferenceServerClient.infer`, until `cancel`."""
        future: Future[InferResult] = Future()

        def done(result: InferResult | None, error: Exception | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        with self._lock:
            if self._is_over:
                raise CancelledError
            call = self._triton.async_infer(callback=done, **request)
            self._running.add(call)
        try:
            return future.result()
        finally:
            with self._lock:
                self._running.discard(call)

    def cancel(self) -> None:
        """End all calls, and those to come."""
        with self._lock:
            self._is_over = True
            running = list(self._running)
        for call in running:
            call.cancel()
