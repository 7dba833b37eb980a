"""Requests to the ensemble `ram`, tensor by tensor, for tests of the wire contract."""

from collections.abc import Sequence

import numpy as np
import tritonclient.grpc as grpc
from ram_triton.server.access import grpc_headers

TYPES = {"threshold": (np.float32, "FP32"), "top_k": (np.int32, "INT32")}
TAG_OUTPUTS = ("tags", "tags_zh", "scores", "tag_ids", "count")
OPEN_OUTPUTS = ("tags", "tags_zh", "scores", "tag_ids", "known", "count")


def infer_inputs(images: Sequence[bytes], **options) -> list[grpc.InferInput]:
    """Make the inputs; an option is one value for all images, or a list of one for each.

    `exclude` is a list of names for all images, or a list of such lists.
    """
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


def ask(client, images: Sequence[bytes], outputs=TAG_OUTPUTS, **options) -> dict[str, np.ndarray]:
    """Send one request and return its outputs by name."""
    requested = [grpc.InferRequestedOutput(name) for name in outputs]
    result = client.infer("ram", infer_inputs(images, **options), outputs=requested)
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
    **options,
) -> dict[str, np.ndarray]:
    """Send one request to `ram_open` and return its outputs by name."""
    inputs = open_inputs(images, labels, labels_zh, **options)
    requested = [grpc.InferRequestedOutput(name) for name in OPEN_OUTPUTS]
    result = client.infer("ram_open", inputs, outputs=requested, client_timeout=timeout)
    return {name: result.as_numpy(name) for name in OPEN_OUTPUTS}


def tags_of(outputs: dict[str, np.ndarray], row: int = 0) -> list[tuple[str, str, float, int]]:
    """One image's tags as (English, Chinese, score, id), without the padding."""
    count = outputs["count"][row, 0]
    columns = (outputs[name][row][:count].tolist() for name in TAG_OUTPUTS[:-1])
    return [
        (en.decode(), zh.decode(), score, id) for en, zh, score, id in zip(*columns, strict=True)
    ]


def statistics(server, client, model):
    """Triton's `ModelStatistics` of a model, which it shows to who has the server's key."""
    headers = grpc_headers(server.key)
    return client.get_inference_statistics(model, headers=headers).model_stats[0]


def _bytes(rows: Sequence[Sequence[bytes]]) -> np.ndarray:
    array = np.empty((len(rows), len(rows[0])), np.object_)
    for index, row in enumerate(rows):
        array[index] = row
    return array
