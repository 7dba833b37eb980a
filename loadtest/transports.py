"""One request over gRPC or HTTP: built by the Python client, answered with its tags or errors."""

import contextlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import gevent
import numpy as np
import tritonclient.http
from grpc.experimental.gevent import init_gevent
from ram_client import InvalidRequest, RamClient, RamError, ServerError, Tag, Timeout, Unavailable
from ram_client.protocol import (
    MODEL,
    OPEN_OUTPUTS,
    OPEN_SUFFIX,
    TAG_OUTPUTS,
    read_tags,
    tag_tensors,
)
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

# gRPC waits for each call in a thread of gevent's pool. Of its ten, slow answers would hold all,
# and fast ones would be seen, and measured, too late.
MAX_WAITING_CALLS = 4096
OPEN_MODEL = MODEL + OPEN_SUFFIX
ERRORS = {"400": InvalidRequest, "503": Unavailable}


def prepare_grpc() -> None:
    """Make gRPC wait as gevent wants it, before the first channel is made."""
    init_gevent()
    gevent.get_hub().threadpool.maxsize = MAX_WAITING_CALLS
    # It closes a second time: gRPC then counts too few channels, and at exit may wait for ever for
    # a lock that a thread held which is gone.
    with contextlib.suppress(AttributeError):
        del InferenceServerClient.__del__


class GrpcTransport:
    """gRPC, as most clients of the project use it.

    Args:
        server: `host:port`.
        timeout: seconds.
    """

    name = "gRPC"

    def __init__(self, server: str, timeout: float):
        self.server = server
        # No retries: a load test has to see what was refused.
        self._client = RamClient(server, timeout=timeout, retries=0)

    def tag(
        self,
        images: Sequence[bytes],
        settings: Mapping[str, float] | None = None,
        labels: Sequence[str] = (),
    ) -> list[list[Tag]]:
        """Return each image's tags, of `labels` where there are any.

        Raises:
            RamError: the server refused, failed, or did not answer in time.
        """
        return self._client.tag_batch(images, labels=labels or None, **(settings or {}))

    def is_ready(self) -> bool:
        """Tell whether a server answers that has the model loaded."""
        try:
            return self._client.is_ready()
        except RamError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class HttpTransport:
    """HTTP with binary tensors: tritonclient's, which waits as gevent wants it by itself.

    Args:
        url: `http://host:port`.
        timeout: seconds.
    """

    name = "HTTP"

    def __init__(self, url: str, timeout: float):
        self._address = urlsplit(url if "//" in url else f"//{url}").netloc
        self._client = tritonclient.http.InferenceServerClient(
            self._address, connection_timeout=timeout, network_timeout=timeout
        )

    def tag(
        self,
        images: Sequence[bytes],
        settings: Mapping[str, float] | None = None,
        labels: Sequence[str] = (),
    ) -> list[list[Tag]]:
        """Return each image's tags; raises as over gRPC."""
        model, wanted = (OPEN_MODEL, OPEN_OUTPUTS) if labels else (MODEL, TAG_OUTPUTS)
        tensors = tag_tensors(images, labels=labels or None, **(settings or {}))
        inputs = [_http_input(name, values) for name, values in tensors.items()]
        outputs = [tritonclient.http.InferRequestedOutput(name) for name in wanted]
        try:
            return read_tags(self._client.infer(model, inputs, outputs=outputs))
        except InferenceServerException as error:
            kind = ERRORS.get(error.status(), ServerError)
            message = error.message().removeprefix(f"in ensemble '{model}', ")
            raise kind(message) from error
        except TimeoutError as error:
            raise Timeout(f"{self._address}: no answer in time") from error
        except OSError as error:
            raise Unavailable(f"{self._address}: {error}") from error

    def is_ready(self) -> bool:
        """Tell whether a server answers that has the model loaded."""
        try:
            return self._client.is_model_ready(MODEL)
        except (OSError, InferenceServerException):
            return False

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _http_input(name: str, values: np.ndarray) -> tritonclient.http.InferInput:
    tensor = tritonclient.http.InferInput(
        name, list(values.shape), np_to_triton_dtype(values.dtype)
    )
    return tensor.set_data_from_numpy(values)


def require_server(grpc_server: str, url: str | None, timeout: float) -> None:
    """Check that a server answers that has the model.

    Args:
        grpc_server: `host:port`.
        url: of HTTP, or None where nobody uses it.
        timeout: seconds.

    Raises:
        Unavailable: none does; the message says where, and what to do.
    """
    wanted = [(GrpcTransport, grpc_server)] + ([(HttpTransport, url)] if url is not None else [])
    for transport, address in wanted:
        try:
            connection = transport(address, timeout)
            ready = connection.is_ready()
            connection.close()
        except Exception:  # no address, or what listens there speaks something else
            ready = False
        if not ready:
            raise Unavailable(
                f"no server with the model '{MODEL}' answers at {address!r} ({transport.name}): "
                "start one with 'make serve'"
            )
