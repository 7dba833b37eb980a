"""Each tag's own threshold, found out from the server: no answer of `ram` tells it."""

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

POSTPROCESSOR = "ram_postprocess"
BATCH = 32  # largest batch of the server's models
TIMEOUT = 60.0  # seconds
ROUNDS = 5  # each divides what is left by 33: to 3e-8, as fine as float32


def find_thresholds(triton: InferenceServerClient, num_tags: int) -> np.ndarray | None:
    """Search all tags' thresholds at once, by asking the postprocessor with scores of our own.

    Args:
        triton: connected to the server.
        num_tags: N.

    Returns:
        float32 (N,), or None where the server lets nobody call the postprocessor directly.
    """
    low, high = np.zeros(num_tags), np.ones(num_tags)
    steps = np.arange(1, BATCH + 1)[:, None] / (BATCH + 1)
    try:
        for _ in range(ROUNDS):
            tried = low + (high - low) * steps
            failed = BATCH - _passing(triton, tried).sum(axis=0)
            width = (high - low) / (BATCH + 1)
            low, high = low + width * failed, low + width * (failed + 1)
    except InferenceServerException:
        return None
    return ((low + high) / 2).astype(np.float32)


def _passing(triton: InferenceServerClient, scores: np.ndarray) -> np.ndarray:
    """Tell which of the scores, (B, N), exceed their tag's threshold: bool (B, N)."""
    logits = InferInput("logits", list(scores.shape), "FP32")
    logits.set_data_from_numpy(np.log(scores / (1 - scores)).astype(np.float32))
    outputs = [InferRequestedOutput(name) for name in ("tag_ids", "count")]
    result = triton.infer(POSTPROCESSOR, [logits], outputs=outputs, client_timeout=TIMEOUT)
    passing = np.zeros(scores.shape, bool)
    for row, (ids, (count,)) in enumerate(
        zip(result.as_numpy("tag_ids"), result.as_numpy("count"), strict=True)
    ):
        passing[row, ids[:count]] = True
    return passing
