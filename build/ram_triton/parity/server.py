"""A running server: asked as clients ask it, for its logits too, and for what it computes with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client import Tag
from ram_client.connection import channel_arguments
from ram_client.errors import from_triton
from ram_client.protocol import (
    MAPS_OUTPUT,
    MODEL,
    OPEN_SUFFIX,
    PIXELS_SUFFIX,
    read_tags,
    tag_request,
)
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from ram_triton.engines.openvino import PRECISION
from ram_triton.errors import ServerError
from ram_triton.parity.limits import FLOAT32_LIMITS, HALF_LIMITS, INT8_LIMITS, Limits
from ram_triton.repository.layout import INT8_GRAPH, LABELS, OPENVINO_BACKEND, graph_steps
from ram_triton.server.access import find_key, grpc_headers
from ram_triton.server_code import preprocess

OPEN_MODEL, PIXELS_MODEL = MODEL + OPEN_SUFFIX, MODEL + PIXELS_SUFFIX
# What the hint of the CPU profile says of the precision; without one the server's processor chooses
# between float32 and bfloat16, and does not report which.
HINTED = {"f32": FLOAT32_LIMITS, "bf16": HALF_LIMITS["bfloat16"], "f16": HALF_LIMITS["float16"]}
UNREPORTED = "float32 or bfloat16"
INT8 = "INT8"
HINTED |= {UNREPORTED: HALF_LIMITS["bfloat16"], INT8: INT8_LIMITS}
RETRIES = 4
TIMEOUT = 600.0  # seconds: a full-size model on a few cores takes minutes for a batch


class Deployment:
    """A server that serves the ensembles; a context manager.

    All methods raise a `ServerError` if the server refuses, fails, or does not answer.

    Attributes:
        address: the server's gRPC endpoint, `host:port`.
        key: of its statistics; None takes that of `make serve`, if there is one.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        """Connect on first use."""
        self.address = address
        self.key = key
        self._triton = InferenceServerClient(address, channel_args=channel_arguments(RETRIES))

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self._triton.close()

    def infer(self, request: dict[str, Any]) -> InferResult:
        """Send a request of `ram_client.protocol` and wait for its answer."""
        with self._translated():
            return self._triton.infer(**request, client_timeout=TIMEOUT)

    def answer(self, images: Sequence[bytes]) -> tuple[list[list[Tag]], npt.NDArray[np.float32]]:
        """Tag encoded images; returns each one's tags, and the logits (images, tags)."""
        return self._answer(tag_request(images))

    def answer_pixels(
        self, images: Sequence[bytes], image_size: int
    ) -> tuple[list[list[Tag]], npt.NDArray[np.float32]]:
        """Tag the same images, sent as pixels of a square of `image_size`."""
        return self._answer(tag_request([preprocess(image, image_size) for image in images]))

    def _answer(self, request: dict[str, Any]) -> tuple[list[list[Tag]], npt.NDArray[np.float32]]:
        request["outputs"].append(InferRequestedOutput("logits"))
        result = self.infer(request)
        return read_tags(result), result.as_numpy("logits")

    def answer_open(
        self, images: Sequence[bytes], labels: Sequence[str]
    ) -> tuple[list[list[Tag]], npt.NDArray[np.float64]]:
        """Ask for labels, whatever their scores; the logits (images, labels) are of the scores."""
        tags = read_tags(self.infer(tag_request(images, labels=labels, threshold=0)))
        scores = np.zeros((len(images), len(labels)))
        for row, answered in zip(scores, tags, strict=True):
            for tag in answered:
                if 0 <= tag.id < len(row):  # `find_wrong_tag` reports others
                    row[tag.id] = tag.score
        with np.errstate(divide="ignore"):  # a score of 0 or 1 has an infinite logit
            return tags, np.log(scores) - np.log1p(-scores)

    def answer_maps(
        self, images: Sequence[bytes], count: int, labels: Sequence[str] | None = None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Ask for the heat maps of each image's first tags, whatever their scores.

        Args:
            images: encoded.
            count: how many tags.
            labels: those of the request, if it has its own.

        Returns:
            Tag ids, (images, tags), and maps, (images, tags, side, side).
        """
        request = tag_request(images, labels=labels, threshold=0, top_k=count)
        request["outputs"] = [InferRequestedOutput(name) for name in ("tag_ids", MAPS_OUTPUT)]
        result = self.infer(request)
        return result.as_numpy("tag_ids"), result.as_numpy(MAPS_OUTPUT)

    def has_maps(self, model: str) -> bool:
        """Return whether a model makes heat maps; those of older repositories do not."""
        outputs = self._config(model).get("output", [])
        return MAPS_OUTPUT in [output["name"] for output in outputs]

    def version(self) -> str:
        """Return the version of tritonserver."""
        with self._translated():
            return str(self._triton.get_server_metadata(client_timeout=TIMEOUT).version)

    def statistics(self, model: str) -> Any:
        """Return Triton's `InferStatistics` of a model: counts and nanoseconds since its start."""
        key = self.key or find_key()
        headers = grpc_headers(key) if key else None
        with self._translated():
            answer = self._triton.get_inference_statistics(
                model, headers=headers, client_timeout=TIMEOUT
            )
        (found,) = answer.model_stats
        return found.inference_stats

    def largest_batch(self) -> int:
        """Return how many images a request may have."""
        return max(int(self._config(MODEL).get("max_batch_size", 0)), 1)

    def most_labels(self) -> int | None:
        """Return how many labels a request may have; None if the server does not specify it."""
        parameters = self._config(LABELS.parts[0]).get("parameters", {})
        most = parameters.get("max_labels", {}).get("string_value")
        return int(most) if most else None

    def models(self) -> list[str]:
        """Return the ensembles that it serves: `ram`, and those of the others that are ready."""
        with self._translated():
            others = [
                model
                for model in (OPEN_MODEL, PIXELS_MODEL)
                if self._triton.is_model_ready(model, client_timeout=TIMEOUT)
            ]
        return [MODEL, *others]

    def engine(self, model: str, half: Limits | None) -> tuple[str, Limits]:
        """Return what computes, by the configs that are served, and what that may differ by.

        Args:
            model: the ensemble.
            half: the limits of TensorRT's half precision, if the repository has them.
        """
        backends, limits = [], []
        for name in graph_steps(model):
            config = self._config(name)
            backend = config.get("backend") or config.get("platform", "unknown")
            hint = config.get("parameters", {}).get(PRECISION, {}).get("string_value", "")
            if config.get("default_model_filename") == INT8_GRAPH:
                hint = INT8
            elif backend == OPENVINO_BACKEND and not hint:
                hint = UNREPORTED
            backends.append(f"{backend} {hint}".strip())
            is_plan = backend.startswith("tensorrt")
            limits.append((half if is_plan else None) or HINTED.get(hint, FLOAT32_LIMITS))
        loosest = max(limits, key=lambda each: each.logit_difference)
        return f"Triton, {' and '.join(dict.fromkeys(backends))}", loosest

    def _config(self, model: str) -> dict[str, Any]:
        with self._translated():
            answer = self._triton.get_model_config(model, as_json=True, client_timeout=TIMEOUT)
        config: dict[str, Any] = answer["config"]
        return config

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            message = from_triton(error, server=self.address, timeout=TIMEOUT)
            raise ServerError(str(message)) from error
