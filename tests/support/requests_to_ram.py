"""Requests to the ensembles, tensor by tensor, for tests of the wire contract."""

from collections.abc import Sequence

import numpy as np
import tritonclient.grpc as grpc
from ram_triton.server.access import grpc_headers

TYPES = {"threshold": (np.float32, "FP32"), "top_k": (np.int32, "INT32")}
TAG_OUTPUTS = ("tags", "tags_zh", "scores", "tag_ids", "count")
OPEN_OUTPUTS = ("tags", "tags_zh", "scores", "tag_ids", "known", "count")


def infer_inputs(images: Sequence[bytes] | np.ndarray, **options) -> list[grpc.InferInput]:
    """Make the inputs; an option is one value for all images, or a list of one for each.

    `exclude` is a list of names for all images, or a list of such lists. An array is pixels.
    """
    if isinstance(images, np.ndarray):
        arrays = {"pixels": (images, "UINT8")}
    else:
        arrays = {"image": (_bytes([[image] for image in images]), "BYTES")}
    for name, value in options.items():
        if name == "exclude":
            rows = value if isinstance(value[0], list) else [value] * len(images)
            arrays[name] = _bytes([[text.encode() for text in row] for row in rows]), "BYTES"
        else:
            rows = value if isinstance(value, list) else [value] * len(images)
            dtype, datatype = TYPES[name]
            arrays[name] = np.array(rows, dtype)[:, None], datatype
    inputs = []
    for name, (array, datatype) in arrays.items():
        inputs.append(grpc.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def ask(
    client, images: Sequence[bytes] | np.ndarray, outputs=TAG_OUTPUTS, **options
) -> dict[str, np.ndarray]:
    """Send one request, to `ram_pixels` if it has pixels, and return its outputs by name."""
    model = "ram_pixels" if isinstance(images, np.ndarray) else "ram"
    requested = [grpc.InferRequestedOutput(name) for name in outputs]
    result = client.infer(model, infer_inputs(images, **options), outputs=requested)
    return {name: result.as_numpy(name) for name in outputs}


def open_inputs(images, labels, labels_zh=None, **options) -> list[grpc.InferInput]:
    """Make the inputs of a request to `ram_open`."""
    inputs = infer_inputs(images, **options)
    for name, names in (("labels", labels), ("labels_zh", labels_zh)):
        if names is not None:
            array = np.array([n if isinstance(n, bytes) else n.encode() for n in names], np.object_)
            inputs.append(grpc.InferInput(name, [len(array)], "BYTES"))
            inputs[-1].set_data_from_numpy(array)
    return inputs


def ask_open(
    client,
    images: Sequence[bytes],
    labels: Sequence[str | bytes],
    labels_zh: Sequence[str] | None = None,
    timeout: float = 60,
    outputs: Sequence[str] = OPEN_OUTPUTS,
    **options,
) -> dict[str, np.ndarray]:
    """Send one request to `ram_open` and return its outputs by name."""
    inputs = open_inputs(images, labels, labels_zh, **options)
    requested = [grpc.InferRequestedOutput(name) for name in outputs]
    result = client.infer("ram_open", inputs, outputs=requested, client_timeout=timeout)
    return {name: result.as_numpy(name) for name in outputs}


def tags_of(outputs: dict[str, np.ndarray], row: int = 0) -> list[tuple[str, str, float, int]]:
    """One image's tags as (English, Chinese, score, id), without the padding."""
    count = outputs["count"][row, 0]
    columns = (outputs[name][row][:count].tolist() for name in TAG_OUTPUTS[:-1])
    return [
        (en.decode(), zh.decode(), score, id) for en, zh, score, id in zip(*columns, strict=True)
    ]


def runs(server, client, models, ask_once):
    """Whether a request runs one of these models, each of which has one instance.

    Triton counts an inference after it has answered. So the request is sent twice, which has the
    first counted; and what was there before may be counted late, but not at each of three tries.
    """

    def counts():
        return [statistics(server, client, model).inference_count for model in models]

    for _ in range(3):
        before = counts()
        ask_once()
        ask_once()
        if counts() == before:
            return False
    return True


def statistics(server, client, model):
    """Triton's `ModelStatistics` of a model, which it shows to who has the server's key."""
    headers = grpc_headers(server.key)
    return client.get_inference_statistics(model, headers=headers).model_stats[0]


def _bytes(rows: Sequence[Sequence[bytes]]) -> np.ndarray:
    array = np.empty((len(rows), len(rows[0])), np.object_)
    for index, row in enumerate(rows):
        array[index] = row
    return array
