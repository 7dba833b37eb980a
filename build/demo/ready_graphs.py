"""The demo's model, ready to serve without PyTorch: its graphs, stored without their weights.

`graphs/` holds what `ram-triton model` makes of the demo's checkpoint, in the places that it has in
a model repository. Of a graph's tensors those that equal a weight of the checkpoint, transposed or
not, are stored as that weight's name: half a megabyte of constants remains of 33. Installing fills
the names in again, and compares each file with its SHA-256 in the manifest.

After the checkpoint or the export has changed, `python -m demo.ready_graphs` makes it again. With
`--halve` it writes a checkpoint in half precision, as the demo's is: a file half as large.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from ram_triton.cli import run_module
from ram_triton.errors import CheckpointError, RepositoryError
from ram_triton.files import require_writable_file, sha256, write_atomically
from ram_triton.repository.layout import LABELS, MANIFEST
from ram_triton.repository.repository import Repository
from safetensors.numpy import load_file

DEMO = Path(__file__).parent
GRAPHS = DEMO / "graphs"
CHECKPOINT = DEMO / "weights" / "ram_demo.safetensors"
LABEL_EMBEDS = LABELS / "label_embeds.npy"  # the weight `label_embed`, in float32
SHORTEST = 256  # elements: shorter tensors stay in the graph
NOTE = "the demo's model, small and trained on drawings of emoji: it says nothing of RAM's accuracy"

Weights = Mapping[str, NDArray[Any]]


def install(root: Path) -> dict[str, Any]:
    """Install the demo's model into a repository.

    Returns:
        Its manifest.

    Raises:
        RepositoryError: the repository cannot be written, or a file of the demo's was changed.
    """
    manifest: dict[str, Any] = json.loads((GRAPHS / MANIFEST).read_text(encoding="utf-8"))
    expected = manifest.pop("artefacts")
    repository = Repository(root)
    with repository.staging() as staging:
        unpack(staging)
        for name, digest in expected.items():
            if sha256(staging / name) != digest:
                raise RepositoryError(
                    f"{GRAPHS / name}: does not give the file that its manifest describes: "
                    "restore the folders graphs and weights, or run 'python -m demo.ready_graphs'"
                )
        repository.install(staging, manifest)
    return manifest


def unpack(folder: Path) -> None:
    """Write the model's files into a folder, in the places that they have in a repository."""
    weights = load_file(CHECKPOINT)
    for source in sorted(path for path in GRAPHS.rglob("*") if path.is_file()):
        target = folder / source.relative_to(GRAPHS)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".onnx":
            graph = onnx.load(source, load_external_data=False)
            fill(graph, weights)
            _save(graph, target)
        elif target != folder / MANIFEST:
            shutil.copyfile(source, target)
    (folder / LABELS).mkdir(parents=True, exist_ok=True)
    np.save(folder / LABEL_EMBEDS, weights["label_embed"].astype(np.float32))


def fill(graph: onnx.ModelProto, weights: Weights) -> None:
    """Put the checkpoint's weights into a graph in which `strip` has put their names."""
    for tensor in graph.graph.initializer:
        source = {entry.key: entry.value for entry in tensor.external_data}
        if source:
            values = weights[source["weight"]]
            values = values.T if "transposed" in source else values
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            values = values.astype(dtype).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def strip(graph: onnx.ModelProto, weights: Weights) -> None:
    """Replace a graph's tensors by the names of the weights that they equal, and drop metadata."""
    names: dict[bytes, dict[str, str]] = {}
    for name, values in weights.items():
        exact = values.astype(np.float32)
        names.setdefault(exact.T.tobytes(), {"weight": name, "transposed": "1"})
        names[exact.tobytes()] = {"weight": name}
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        source = names.get(values.astype(np.float32).tobytes())
        if source and values.size >= SHORTEST:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": CHECKPOINT.name, **source}.items():
                tensor.external_data.add(key=key, value=value)
    described = (graph, graph.graph, *graph.graph.node, *graph.graph.value_info)
    for part in (*described, *graph.graph.input, *graph.graph.output):
        part.ClearField("metadata_props")  # where in PyTorch's code it came from
        part.ClearField("doc_string")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--halve",
        type=Path,
        nargs=2,
        metavar=("CHECKPOINT", "OUTPUT.safetensors"),
        help="instead write a checkpoint's weights in half precision",
    )


def run(arguments: argparse.Namespace) -> None:
    """Make the graphs, or a checkpoint in half precision."""
    if arguments.halve:
        halve(*arguments.halve)
    else:
        make()


def halve(source: Path, output: Path) -> None:
    """Write a checkpoint's weights in half precision, whole or not at all.

    Raises:
        CheckpointError: it is not one, or has a weight beyond half precision's range.
    """
    require_writable_file(output)  # before the imports that take seconds

    import torch
    from ram_triton.model.checkpoint import read_weights
    from safetensors.torch import save_file

    weights = {name: tensor.half() for name, tensor in read_weights(source).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: '{name}' is beyond half precision's range")
    write_atomically(output, lambda unfinished: save_file(weights, unfinished))
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def make() -> None:
    """Build the demo's repository with PyTorch, and write the folder from it."""
    from ram_triton.build import BuildRequest, build

    with tempfile.TemporaryDirectory() as temporary:
        built, filled = Path(temporary, "built"), Path(temporary, "filled")
        build(BuildRequest(CHECKPOINT, DEMO / "vocabulary", built, DEMO / "images", note=NOTE))
        manifest = Repository(built).require_manifest()
        weights = load_file(CHECKPOINT)
        shutil.rmtree(GRAPHS, ignore_errors=True)
        for name in map(Path, manifest["artefacts"]):
            (GRAPHS / name).parent.mkdir(parents=True, exist_ok=True)
            if name.suffix == ".onnx":
                graph = onnx.load(built / name)
                strip(graph, weights)
                (GRAPHS / name).write_bytes(graph.SerializeToString())
            elif name.suffix == ".json":
                shutil.copyfile(built / name, GRAPHS / name)
        unpack(filled)
        manifest["artefacts"] = {name: sha256(filled / name) for name in manifest["artefacts"]}
    (GRAPHS / MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (GRAPHS / MANIFEST).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    size = sum(path.stat().st_size for path in GRAPHS.rglob("*") if path.is_file())
    print(f"{GRAPHS}: {size / 1e6:.1f} MB")


def _save(graph: onnx.ModelProto, path: Path) -> None:
    data = path.with_name(f"{path.name}.data")
    onnx.save_model(graph, path, save_as_external_data=True, location=data.name)
    data.chmod(path.stat().st_mode)  # onnx makes it readable to its owner alone


if __name__ == "__main__":
    sys.exit(run_module("demo.ready_graphs", sys.modules[__name__]))
