"""Vocabulary and image size: the same in the graphs and in the files beside the Python models."""

from collections.abc import Iterator
from pathlib import Path

from ram_triton.doctor.finding import Finding, error, fine, unknown
from ram_triton.doctor.repository_view import Inspected, read_json
from ram_triton.repository.layout import ENCODER, HALF_HEAD, HEAD, PREPROCESSING, VOCABULARY

REBUILD = "run 'make model' again: the files come from different builds"
FIELDS = {"tag", "tag_zh", "threshold"}  # of an entry of the vocabulary


def check_vocabulary(repository: Inspected) -> Iterator[Finding]:
    """Compare the number of tags with the length of the head's logits."""
    entries = read_json(repository.root / VOCABULARY)
    tags = None
    if isinstance(entries, list):
        tags = sum(
            isinstance(e, dict) and {"tag", "tag_zh", "threshold"} <= set(e) for e in entries
        )
    if tags is None or tags < len(entries):
        text = f"{VOCABULARY} is missing, damaged or cut short"
        yield error("vocabulary", text, "run 'make model' again")
        return
    yield from _compare(repository, "vocabulary", HEAD, "logits", 1, tags, "tags")


def check_image_size(repository: Inspected) -> Iterator[Finding]:
    """Compare the preprocessor's image size with that of the encoder's pixels."""
    written = read_json(repository.root / PREPROCESSING)
    size = written.get("image_size") if isinstance(written, dict) else None
    if not isinstance(size, int):
        text = f"{PREPROCESSING} is missing, damaged or without an image_size"
        yield error("image size", text, "run 'make model' again")
        return
    yield from _compare(repository, "image size", ENCODER, "pixels", 1, size, "px")


def _compare(
    repository: Inspected, subject: str, graph: Path, tensor: str, axis: int, size: int, unit: str
) -> Iterator[Finding]:
    """Compare `size` with a dimension of a tensor, in every graph of a model that is there."""
    try:
        graphs = {
            path.name: _dimension(path, tensor, axis)
            for path in (
                repository.root / graph.with_name(name) for name in (graph.name, HALF_HEAD.name)
            )
            if path.is_file()
        }
        source = "the graph's"
    except ImportError:
        # The manifest tells what the build saw, and the artefacts' hashes that it still holds.
        variant = repository.variant
        told = variant and (variant.num_tags if tensor == "logits" else variant.image_size)
        graphs = {"manifest": told} if told else {}
        source = "by the manifest (onnx is not installed) the graph's"
    except ValueError as problem:
        yield error(subject, str(problem), "run 'make model' again")
        return
    for name, found in graphs.items():
        if found != size:
            where = graph.parent.parent if name == "manifest" else graph.with_name(name)
            yield error(subject, f"{size} {unit}, but {where} has {found}", REBUILD)
    if not graphs:
        yield unknown(subject, f"{graph} is not there to compare with", "run 'make model'")
    elif all(found == size for found in graphs.values()):
        yield fine(subject, f"{size} {unit}, {source} too")


def _dimension(path: Path, tensor: str, axis: int) -> int:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as problem:
        raise ValueError(f"{path.name} of {path.parent.parent.name} is no ONNX graph") from problem
    values = {value.name: value for value in (*graph.input, *graph.output)}
    if tensor not in values:
        raise ValueError(f"{path.name} of {path.parent.parent.name} has no tensor '{tensor}'")
    dimensions = values[tensor].type.tensor_type.shape.dim
    if axis >= len(dimensions):
        raise ValueError(
            f"{path.name} of {path.parent.parent.name}: '{tensor}' has {len(dimensions)} dimensions"
        )
    return dimensions[axis].dim_value
