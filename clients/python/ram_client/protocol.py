"""The wire contract: requests are built here and responses read here, and only here.

Nothing in this file does any I/O, so the sync and the async client share all of it. B is the number
of images in a request, M the number of tags of its longest row, D the width of the embedding.

  inputs   image BYTES [B, 1], or to the model that takes pixels: pixels UINT8 [B, S, S, 3];
           threshold FP32 [B, 1], top_k INT32 [B, 1], exclude BYTES [B, K], which are optional; to
           the open model labels BYTES [N] in place of exclude
  outputs  tags BYTES [B, M], tags_zh BYTES [B, M], scores FP32 [B, M], tag_ids INT32 [B, M],
           count INT32 [B, 1]: how many of a row's M are tags, the rest being padding;
           embedding FP32 [B, D]; of the open model known BOOL [B, M]; if asked for, maps FP32
           [B, 1 to 256, S/32, S/32], of the tags in the same places: a row at least, and no more
           than the server makes
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import np_to_triton_dtype

from .errors import InvalidRequest, ModelNotFound, ServerError
from .image import MAX_BYTES, Content
from .tag import Heatmap, Tag

Array = npt.NDArray[Any]

MODEL = "ram"
OPEN_SUFFIX = "_open"  # of the model that takes labels
PIXELS_SUFFIX = "_pixels"  # of the model that takes pixels
SIZE_SUFFIX = "_pixels_check"  # of the model whose metadata has S
TAG_OUTPUTS = ("tags", "tags_zh", "scores", "tag_ids", "count")
OPEN_OUTPUTS = (*TAG_OUTPUTS, "known")
MAPS_OUTPUT = "maps"
EMBEDDING_OUTPUTS = ("embedding",)
NO_MAPS = "unexpected inference output 'maps'"
WRONG_SHAPE = "unexpected shape for input 'pixels'"


def settings(
    threshold: float | None,
    top_k: int | None,
    exclude: str | Iterable[str] | None,
    labels: str | Iterable[str] | None,
    where: bool = False,
) -> dict[str, Any]:
    """What applies to all images, as `tag_request` takes it; for many requests in turn."""
    names = {"exclude": exclude, "labels": labels}
    lists = {
        name: given if given is None or isinstance(given, str) else list(given)
        for name, given in names.items()
    }
    return {"threshold": threshold, "top_k": top_k, "where": where, **lists}


def tag_request(
    images: Sequence[Content],
    *,
    model: str = MODEL,
    threshold: float | None = None,
    top_k: int | None = None,
    exclude: str | Iterable[str] | None = None,
    labels: str | Iterable[str] | None = None,
    where: bool = False,
) -> dict[str, Any]:
    """The arguments of tritonclient's `infer` that ask for the tags of `images`.

    The images are encoded, all of them, or pixels, (S, S, 3) each; with labels they are encoded.
    `where` asks for heat maps too.
    The settings apply to all images of the request. Ranges are the server's to check; only what the
    tensors cannot contain, or names to exclude beside labels, raises InvalidRequest here.
    """
    tensors = tag_tensors(images, threshold=threshold, top_k=top_k, exclude=exclude, labels=labels)
    maps = (MAPS_OUTPUT,) if where else ()
    if labels is None:
        return _request(_model_for(model, images), tensors, (*TAG_OUTPUTS, *maps))
    return _request(model + OPEN_SUFFIX, tensors, (*OPEN_OUTPUTS, *maps))


def tag_tensors(
    images: Sequence[Content],
    *,
    threshold: float | None = None,
    top_k: int | None = None,
    exclude: str | Iterable[str] | None = None,
    labels: str | Iterable[str] | None = None,
) -> dict[str, Array]:
    """The inputs of such a request by name, for any of Triton's protocols; raises as above."""
    tensors = _image_tensors(images)
    rows = len(images)
    if threshold is not None:
        tensors["threshold"] = np.full((rows, 1), threshold, np.float32)
    if top_k is not None:
        top_k = operator.index(top_k)
        if abs(top_k) > np.iinfo(np.int32).max:
            raise InvalidRequest(f"top_k: {top_k} does not fit into 32 bits")
        tensors["top_k"] = np.full((rows, 1), top_k, np.int32)
    if names := _encode_names("exclude", exclude):
        tensors["exclude"] = np.array([names] * rows, dtype=np.object_)
    if labels is not None:
        if names:
            raise InvalidRequest("exclude: leave the names out of the labels instead")
        tensors["labels"] = np.array(_encode_names("labels", labels), dtype=np.object_)
    return tensors


def embedding_request(images: Sequence[Content], *, model: str = MODEL) -> dict[str, Any]:
    """The arguments of tritonclient's `infer` that ask for the embeddings of `images`."""
    return _request(_model_for(model, images), _image_tensors(images), EMBEDDING_OUTPUTS)


def read_image_size(metadata: Any) -> int:
    """S, of the metadata of the model whose name ends in `SIZE_SUFFIX`."""
    return int(metadata.inputs[0].shape[1])


def is_about_pixels(error: Exception, model: str = MODEL) -> bool:
    """Whether the server has changed: its pixels are of another size, or it takes none."""
    return (isinstance(error, InvalidRequest) and WRONG_SHAPE in str(error)) or (
        isinstance(error, ModelNotFound) and model + PIXELS_SUFFIX in str(error)
    )


@contextmanager
def asking_for_maps() -> Iterator[None]:
    """Say what is missing where a server has no heat maps."""
    try:
        yield
    except InvalidRequest as error:
        if NO_MAPS not in str(error):
            raise
        raise InvalidRequest(
            "where: the server has no heat maps: its models were built before there were any; "
            "run 'make model' again there, with the new configs"
        ) from error


def deadline(timeout: float | None) -> dict[str, Any]:
    """The arguments of tritonclient's `infer` for a timeout in seconds; None waits without limit.

    The server gets it too, in microseconds: what has waited longer in a queue is not worked on.
    """
    if timeout is None:
        return {}
    return {"client_timeout": timeout, "timeout": max(1, round(timeout * 1e6))}


def read_tags(result: InferResult) -> list[list[Tag]]:
    """Each image's tags, in the server's order: highest score first."""
    names, names_zh, scores, ids, counts = (_output(result, name) for name in TAG_OUTPUTS)
    known = result.as_numpy("known")
    known = np.full(ids.shape, True) if known is None else known
    maps = result.as_numpy(MAPS_OUTPUT)
    return [
        [
            Tag(name.decode(), name_zh.decode(), score, identity, is_known, heatmap)
            for name, name_zh, score, identity, is_known, heatmap in zip(
                names[row, :count],
                names_zh[row, :count],
                scores[row, :count].tolist(),
                ids[row, :count].tolist(),
                known[row, :count].tolist(),
                _heatmaps(maps, row, count),
                strict=True,
            )
        ]
        for row, count in enumerate(counts[:, 0].tolist())
    ]


def _heatmaps(maps: Array | None, row: int, count: int) -> list[Heatmap | None]:
    """Return a row's maps as the tags have them: None for those beyond the ones that were made."""
    found = [] if maps is None else [heatmap.copy() for heatmap in maps[row, :count]]
    return found + [None] * (count - len(found))


def read_embeddings(result: InferResult) -> Array:
    """The images' embeddings, float32 (B, D), writable."""
    return _output(result, "embedding").copy()


def _request(model: str, tensors: dict[str, Array], outputs: Iterable[str]) -> dict[str, Any]:
    return {
        "model_name": model,
        "inputs": [_input(name, values) for name, values in tensors.items()],
        "outputs": list(map(_requested, outputs)),
    }


@cache
def _requested(output: str) -> InferRequestedOutput:
    return InferRequestedOutput(output)


def _model_for(model: str, images: Sequence[Content]) -> str:
    return model + PIXELS_SUFFIX if _are_pixels(images) else model


def _are_pixels(images: Sequence[Content]) -> bool:
    return len(images) > 0 and isinstance(images[0], np.ndarray)


def _image_tensors(images: Sequence[Content]) -> dict[str, Array]:
    size = sum(image.nbytes if isinstance(image, np.ndarray) else len(image) for image in images)
    if size > MAX_BYTES:
        raise InvalidRequest("image: the images of a request must stay below 2 GiB together")
    if _are_pixels(images):
        return {"pixels": np.stack(images)}
    return {"image": np.array(images, dtype=np.object_).reshape(-1, 1)}


def _encode_names(tensor: str, names: str | Iterable[str] | None) -> list[bytes]:
    names = [names] if isinstance(names, str) else list(names or ())
    for name in names:
        if not isinstance(name, str):
            raise InvalidRequest(f"{tensor}: {name!r} is not a str")
    try:
        return [name.encode() for name in names]
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{tensor}: {error.object!r} is not valid text") from error


def _input(name: str, values: Array) -> InferInput:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return tensor.set_data_from_numpy(values)


def _output(result: InferResult, name: str) -> Array:
    values: Array | None = result.as_numpy(name)
    if values is None:
        raise ServerError(f"the server's answer has no output {name!r}")
    return values
