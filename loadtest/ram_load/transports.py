"""One request over gRPC or HTTP: built by the Python client, answered with its tags or an error."""

import contextlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import gevent
import numpy as np
import numpy.typing as npt
from grpc.experimental.gevent import init_gevent
from ram_client import (
    InvalidRequest,
    RamClient,
    ServerError,
    Tag,
    Timeout,
    Unavailable,
)
from ram_client.protocol import (
    MODEL,
    OPEN_OUTPUTS,
    OPEN_SUFFIX,
    TAG_OUTPUTS,
    read_tags,
    tag_tensors,
)
from ram_triton.errors import LoadError
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.http import InferenceServerClient as HttpClient
from tritonclient.http import InferInput as HttpInput
from tritonclient.http import InferRequestedOutput as HttpOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from ram_load.traffic import Kind

# gRPC waits for each call in a thread of gevent's pool. Slow answers would occupy all of its ten
# threads, and fast ones would be seen, and measured, too late.
MAX_WAITING_CALLS = 4096
OPEN_MODEL = MODEL + OPEN_SUFFIX
LABEL_MODEL = "ram_open_labels"
LABELS_AT_ONCE = 1000
ERRORS = {"400": InvalidRequest, "503": Unavailable}


def prepare_grpc() -> None:
    """Make gRPC wait with gevent, before the first channel is made."""
    init_gevent()
    gevent.get_hub().threadpool.maxsize = MAX_WAITING_CALLS
    # tritonclient 2.73 closes a client's channel in `close` and again in `__del__`, and grpcio 1.85
    # subtracts a channel from the number that gevent serves at every `Channel.close` (`_close` in
    # grpc/_channel.py calls `gevent_decrement_channel_count` unconditionally). At 0 it stops
    # serving the channels that are still open, and the process can hang at its exit.
    with contextlib.suppress(AttributeError):
        del InferenceServerClient.__del__


class GrpcTransport:
    """gRPC, through the project's Python client, as most clients use it.

    Args:
        server: `host:port`.
        timeout: seconds.
    """

    name = "gRPC"

    def __init__(self, server: str, timeout: float) -> None:
        # Without retries: a load test has to see what was refused.
        self._client = RamClient(server, timeout=timeout, retries=0)

    def tag(self, images: Sequence[bytes], kind: Kind) -> list[list[Tag]]:
        """Return each image's tags; raises a RamError if the server gives no answer in time."""
        return self._client.tag_batch(images, **kind.arguments)

    def is_ready(self) -> bool:
        """Return whether the server that answers has loaded the model."""
        return self._client.is_ready()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class HttpTransport:
    """HTTP with binary tensors, through tritonclient, whose HTTP client uses gevent by itself.

    Args:
        url: `http://host:port`.
        timeout: seconds.
    """

    name = "HTTP"

    def __init__(self, url: str, timeout: float) -> None:
        self._address = urlsplit(url if "//" in url else f"//{url}").netloc
        self._client = HttpClient(
            self._address, connection_timeout=timeout, network_timeout=timeout
        )

    def tag(self, images: Sequence[bytes], kind: Kind) -> list[list[Tag]]:
        """Return each image's tags; raises a RamError if the server gives no answer in time."""
        model, wanted = (OPEN_MODEL, OPEN_OUTPUTS) if kind.labels else (MODEL, TAG_OUTPUTS)
        tensors = tag_tensors(images, **kind.arguments)
        inputs = [_tensor(HttpInput, name, values) for name, values in tensors.items()]
        outputs = [HttpOutput(name) for name in wanted]
        try:
            return read_tags(self._client.infer(model, inputs, outputs=outputs))
        except InferenceServerException as error:
            message = error.message().removeprefix(f"in ensemble '{model}', ")
            raise ERRORS.get(error.status(), ServerError)(message) from error
        except TimeoutError as error:
            raise Timeout(f"{self._address}: no answer in time") from error
        except OSError as error:
            raise Unavailable(f"{self._address}: {error}") from error

    def is_ready(self) -> bool:
        """Return whether the server that answers has loaded the model."""
        return bool(self._client.is_model_ready(MODEL))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


Transport = GrpcTransport | HttpTransport


def count_bytes(answer: list[list[Tag]]) -> int:
    """Return the size of an answer's tensors, without padding.

    A tag has two texts, each after the 4 bytes of its length, a score and an id of 4 bytes each; a
    row has a count of 4 bytes.
    """
    tags = [tag for row in answer for tag in row]
    texts = sum(len(tag.name.encode()) + len(tag.name_zh.encode()) for tag in tags)
    return texts + 16 * len(tags) + 4 * len(answer)


def require_server(grpc_server: str, url: str | None, timeout: float) -> None:
    """Check that a server answers that has loaded the model.

    Args:
        grpc_server: `host:port`.
        url: the HTTP address, or None if no user needs it.
        timeout: seconds.

    Raises:
        LoadError: there is none; the message states where, and what to do.
    """
    wanted: list[tuple[type[Transport], str]] = [(GrpcTransport, grpc_server)]
    if url is not None:
        wanted.append((HttpTransport, url))
    for transport, address in wanted:
        is_ready = False
        # Nothing may answer, it may be no address, and what listens may speak another protocol.
        with (
            contextlib.suppress(Exception),
            contextlib.closing(transport(address, timeout)) as connection,
        ):
            is_ready = connection.is_ready()
        if not is_ready:
            raise LoadError(
                f"no server with the model '{MODEL}' answers at {address!r} ({transport.name}): "
                "start one with 'make serve'"
            )


def serves_labels(server: str) -> bool:
    """Return whether the server at `host:port` has loaded the model that takes labels."""
    with InferenceServerClient(server) as triton:
        return bool(triton.is_model_ready(OPEN_MODEL))


def ask_thresholds(
    server: str, names: Sequence[str], timeout: float
) -> npt.NDArray[np.float32] | None:
    """Ask the model that looks up labels for the tags' own thresholds.

    Args:
        server: `host:port`.
        names: tags of the vocabulary.
        timeout: seconds.

    Returns:
        (names,) float32, or None if the server does not let clients call that model.
    """
    image = _tensor(
        InferInput, "image", np.array([[b""]], np.object_)
    )  # an input, but not looked at
    found = []
    try:
        with InferenceServerClient(server) as triton:
            for start in range(0, len(names), LABELS_AT_ONCE):
                some = [name.encode() for name in names[start : start + LABELS_AT_ONCE]]
                answer = triton.infer(
                    LABEL_MODEL,
                    [image, _tensor(InferInput, "labels", np.array(some, np.object_))],
                    outputs=[InferRequestedOutput("thresholds")],
                    client_timeout=timeout,
                )
                found.append(answer.as_numpy("thresholds"))
    except InferenceServerException:
        return None
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _tensor(
    input_type: type[InferInput] | type[HttpInput], name: str, values: npt.NDArray[np.generic]
) -> Any:
    """Return an input of a request, of either protocol."""
    tensor = input_type(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return tensor.set_data_from_numpy(values)
