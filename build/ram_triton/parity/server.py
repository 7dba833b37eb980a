"""A running server, asked as clients ask it, and for the logits of the same answer."""

from collections.abc import Sequence
from types import TracebackType

import numpy as np
from ram_client import Tag
from ram_client.channel import channel_arguments
from ram_client.errors import from_triton
from ram_client.protocol import MODEL, OPEN_SUFFIX, read_tags, tag_request
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from ram_triton.graphs.int8 import LIMITS as INT8_LIMITS
from ram_triton.parity.compare import FLOAT32, Limits
from ram_triton.parity.limits import LIMITS
from ram_triton.repository.layout import INT8_ENCODER, graph_steps
from ram_triton.server_code import Vocabulary, select, sigmoid

OPEN_MODEL = MODEL + OPEN_SUFFIX
HINT = "INFERENCE_PRECISION_HINT"
# What the hint of the CPU profile says of the precision; without one the server's processor chooses
# between float32 and bfloat16, and does not tell.
HINTED = {"f32": FLOAT32, "bf16": LIMITS["bfloat16"], "f16": LIMITS["float16"]}
UNTOLD = "float32 or bfloat16"
INT8 = "INT8"
HINTED |= {UNTOLD: LIMITS["bfloat16"], INT8: INT8_LIMITS}
RETRIES = 4
TIMEOUT = 600.0  # seconds: a full-size model on a few cores takes minutes for a batch
SAME_SCORE = 1e-5  # the server's numpy may round a score otherwise than ours


class Deployment:
    """A server that serves the ensembles; a context manager. All its calls raise `RamError`."""

    def __init__(self, server: str) -> None:
        """Connect on first use to a gRPC endpoint, `host:port`."""
        self.server = server
        self._triton = InferenceServerClient(server, channel_args=channel_arguments(RETRIES))

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._triton.close()

    def largest_batch(self) -> int:
        """How many images a request may have."""
        return max(self._config(MODEL).get("max_batch_size", 0), 1)

    def models(self) -> list[str]:
        """Return the ensembles that it serves: `ram`, and `ram_open` where that is ready."""
        try:
            is_open = self._triton.is_model_ready(OPEN_MODEL, client_timeout=TIMEOUT)
        except InferenceServerException as error:
            raise from_triton(error, server=self.server, timeout=TIMEOUT) from error
        return [MODEL, *([OPEN_MODEL] if is_open else [])]

    def engine(self, model: str, typed: Limits | None) -> tuple[str, Limits]:
        """What computes, by the configs that are served, and what that may differ by.

        Args:
            model: the ensemble.
            typed: the limits of TensorRT's half precision, where the repository has them.
        """
        backends, limits = [], []
        for name in graph_steps(model):
            config = self._config(name)
            backend = config.get("backend") or config.get("platform", "unknown")
            hint = config.get("parameters", {}).get(HINT, {}).get("string_value", "")
            if config.get("default_model_filename") == INT8_ENCODER.name:
                hint = INT8
            elif backend == "openvino" and not hint:
                hint = UNTOLD
            backends.append(f"{backend} {hint}".strip())
            half = typed if backend.startswith("tensorrt") else None
            limits.append(half or HINTED.get(hint, FLOAT32))
        loosest = max(limits, key=lambda each: each.logit_difference)
        return f"Triton, {' and '.join(dict.fromkeys(backends))}", loosest

    def answer(self, images: Sequence[bytes]) -> tuple[list[list[Tag]], np.ndarray]:
        """Tag encoded images; returns each one's tags, and the logits (images, tags)."""
        request = tag_request(images)
        request["outputs"].append(InferRequestedOutput("logits"))
        result = self._infer(request)
        return read_tags(result), result.as_numpy("logits")

    def answer_open(
        self, images: Sequence[bytes], labels: Sequence[str]
    ) -> tuple[list[list[Tag]], np.ndarray]:
        """Ask for labels, whatever their scores; the logits (images, labels) are of the scores."""
        tags = read_tags(self._infer(tag_request(images, labels=labels, threshold=0)))
        scores = np.zeros((len(images), len(labels)))
        for row, answered in zip(scores, tags, strict=True):
            for tag in answered:
                if 0 <= tag.id < len(row):  # `wrong_tag` tells of others
                    row[tag.id] = tag.score
        with np.errstate(divide="ignore"):  # a score of 0 or 1 has an infinite logit
            return tags, np.log(scores) - np.log1p(-scores)

    def _infer(self, request: dict) -> InferResult:
        try:
            return self._triton.infer(**request, client_timeout=TIMEOUT)
        except InferenceServerException as error:
            raise from_triton(error, server=self.server, timeout=TIMEOUT) from error

    def _config(self, model: str) -> dict:
        try:
            answer = self._triton.get_model_config(model, as_json=True, client_timeout=TIMEOUT)
        except InferenceServerException as error:
            raise from_triton(error, server=self.server, timeout=TIMEOUT) from error
        return answer["config"]


def wrong_tag(tags: Sequence[Tag], logits: np.ndarray, vocabulary: Vocabulary) -> str:
    """Say which of an image's tags is not what its own logits (tags,) ask for; empty if none."""
    ids, _ = select(logits, vocabulary)
    wanted, scores = set(ids.tolist()), sigmoid(logits)
    for tag in tags:
        if not 0 <= tag.id < len(scores):
            return f"there is no tag {tag.id}"
        names = vocabulary.tags[tag.id], vocabulary.tags_zh[tag.id]
        if (tag.name, tag.name_zh) != names:
            return f"tag {tag.id} is called '{tag.name}', not '{names[0]}'"
        if not abs(tag.score - scores[tag.id]) <= SAME_SCORE:
            return f"'{tag.name}' has the score {tag.score:.5f}, its logit says otherwise"
    for identity in wanted ^ {tag.id for tag in tags}:
        if abs(scores[identity] - vocabulary.thresholds[identity]) > SAME_SCORE:
            kind = "is missing" if identity in wanted else "is below its threshold"
            return f"'{vocabulary.tags[identity]}' {kind}"
    return ""
