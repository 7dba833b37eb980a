"""The synchronous client."""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

from . import errors, protocol
from .channel import channel_arguments
from .image import ImageLike, encode
from .tag import Tag
from .tls import FilePath, Tls, find_problem, metadata


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
        self._triton = InferenceServerClient(
            server,
            creds=self._tls.credentials() if self._tls else credentials,
            channel_args=channel_arguments(retries),
        )

    def tag(
        self,
        image: ImageLike,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
    ) -> list[Tag]:
        """The things in `image`, highest score first; an empty list if there is nothing.

        image: a path, the bytes of an encoded image (or its base64 or data: URL text, as bytes), or
            a Pillow image, which is sent as PNG: several times a JPEG's size, so prefer its path.
        threshold: in [0, 1], the score a tag must exceed; replaces the tags' own thresholds.
        top_k: maximum number of tags; 0 means no limit.
        exclude: tags to leave out, by English or Chinese name.
        labels: look only for these, by name; the server refuses names that neither its tag list
            nor its text encoder, if it has one, knows.
        """
        (tags,) = self.tag_batch(
            [image], threshold=threshold, top_k=top_k, exclude=exclude, labels=labels
        )
        return tags

    def tag_batch(
        self,
        images: Sequence[ImageLike],
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        exclude: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
    ) -> list[list[Tag]]:
        """The tags of each of `images`, sent as one request and settings as in `tag`.

        One bad image fails the whole request, and so do more images than the server's largest batch
        (InvalidRequest).
        """
        if not images:
            return []
        request = protocol.tag_request(
            [encode(image) for image in images],
            model=self.model,
            threshold=threshold,
            top_k=top_k,
            exclude=exclude,
            labels=labels,
        )
        return protocol.read_tags(self._infer(request))

    def embed(self, image: ImageLike) -> protocol.Array:
        """The image's embedding: float32 (D,), D being 512 for the published models."""
        embedding: protocol.Array = self.embed_batch([image])[0]
        return embedding

    def embed_batch(self, images: Sequence[ImageLike]) -> protocol.Array:
        """The embeddings of one or more `images`, sent as one request: float32 (B, D)."""
        request = protocol.embedding_request([encode(image) for image in images], model=self.model)
        return protocol.read_embeddings(self._infer(request))

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

    def _infer(self, request: dict[str, Any]) -> InferResult:
        try:
            return self._triton.infer(
                **request, **protocol.deadline(self.timeout), headers=self._headers
            )
        except InferenceServerException as error:
            raise self._translated(error) from error

    def _translated(self, error: InferenceServerException) -> errors.RamError:
        found = errors.from_triton(error, server=self.server, timeout=self.timeout)
        if isinstance(found, errors.Unavailable):
            problem = find_problem(self.server, self._tls, str(found))
            return errors.CertificateError(f"{self.server}: {problem}") if problem else found
        return found
