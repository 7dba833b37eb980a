"""The demo's ready graphs: what `ram-triton model` makes of its checkpoint, without PyTorch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from demo import ready_graphs
from ram_triton.cli import run_module
from ram_triton.engines.openvino import CompiledGraph, openvino_tagger
from ram_triton.engines.tagger import tag_all, torch_tagger
from ram_triton.errors import RepositoryError
from ram_triton.model.checkpoint import load_model, read_weights
from ram_triton.parity.compare import compare
from ram_triton.parity.limits import FLOAT32_LIMITS
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository import layout
from ram_triton.repository.repository import Repository
from ram_triton.vocabulary.tag_lists import read_vocabulary

DEMO = Path(__file__).parents[2] / "build" / "demo"
MAKE_AGAIN = "run '.venv/bin/python -m demo.ready_graphs'"
NOT_INSTALLED = ("torch", "timm", "onnxruntime", "onnxscript", "transformers", "sklearn")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The demo's repository, installed where none of PyTorch's packages can be imported."""
    folder = tmp_path_factory.mktemp("ready")
    for package in NOT_INSTALLED:
        (folder / f"{package}.py").write_text(f"raise SystemExit('{package} is imported')")
    command = [sys.executable, "-m", "ram_triton", "demo", "--install"]
    done = subprocess.run(
        [*command, "--repository", folder / "models"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("at 128 px with 301 tags\n")
    return folder / "models"


@pytest.fixture(scope="module")
def demo_model():
    """The demo's checkpoint in PyTorch."""
    return load_model(ready_graphs.CHECKPOINT)


@pytest.fixture(scope="module")
def pictures(demo_model):
    """Pixels of the demo's pictures."""
    size = demo_model.variant.image_size
    return [
        *picture_batches(DEMO / "images" / "twemoji", size),
        *picture_batches(DEMO / "images", size),
    ]


@pytest.fixture(scope="module")
def demo_vocabulary(demo_model):
    """The demo's tags."""
    return read_vocabulary(DEMO / "vocabulary", demo_model.variant.num_tags)


def test_the_ready_graphs_give_the_checkpoints_logits(
    installed, demo_model, pictures, demo_vocabulary
):
    expected = tag_all(torch_tagger(demo_model), pictures)
    tagger = openvino_tagger(installed / layout.ENCODER, installed / layout.HEAD)
    compare(expected, tag_all(tagger, pictures), demo_vocabulary).require(FLOAT32_LIMITS)


def test_the_ready_open_head_gives_them_too(installed, demo_model, pictures, demo_vocabulary):
    expected = tag_all(torch_tagger(demo_model), pictures)
    with torch.inference_mode():
        embeds = torch.cat([demo_model.encoder(torch.from_numpy(p)) for p in pictures]).numpy()
    labels = np.load(installed / ready_graphs.LABEL_EMBEDS)
    graph = CompiledGraph(installed / layout.OPEN_HEAD)
    found = graph(image_embeds=embeds, label_embeds=labels)["logits"]
    compare(expected, found, demo_vocabulary).require(FLOAT32_LIMITS)


def test_the_ready_repository_has_what_a_build_writes(
    installed, repository, demo_model, demo_vocabulary, tmp_path
):
    ready, built = (Repository(root).require_manifest() for root in (installed, repository))
    assert ready.keys() == built.keys(), MAKE_AGAIN
    assert ready["artefacts"].keys() == built["artefacts"].keys(), MAKE_AGAIN
    for name, digest in ready["artefacts"].items():
        assert ready_graphs.sha256(installed / name) == digest
    assert ready["checkpoint"]["sha256"] == ready_graphs.sha256(ready_graphs.CHECKPOINT)
    assert ready["variant"] == json.loads(json.dumps(demo_model.variant.as_dict()))
    demo_vocabulary.save(tmp_path / "vocabulary.json")
    expected = (tmp_path / "vocabulary.json").read_bytes()
    assert (installed / layout.VOCABULARY).read_bytes() == expected
    assert (installed / layout.LABELS / "vocabulary.json").read_bytes() == expected


def test_the_graphs_are_stored_without_weights_and_without_paths_of_a_machine():
    for path in ready_graphs.GRAPHS.rglob("*.onnx"):
        assert path.stat().st_size < 500_000
        graph = onnx.load(path, load_external_data=False)
        assert not any(node.metadata_props for node in graph.graph.node)
    assert sum(path.stat().st_size for path in ready_graphs.GRAPHS.rglob("*.*")) < 2_000_000


def test_a_damaged_graph_is_refused_and_nothing_is_installed(tmp_path, monkeypatch):
    damaged = shutil.copytree(ready_graphs.GRAPHS, tmp_path / "graphs")
    head = damaged / layout.HEAD
    graph = onnx.load(head, load_external_data=False)
    queries = next(one for one in graph.graph.initializer if one.name == "queries")
    queries.raw_data = bytes(len(queries.raw_data))
    head.write_bytes(graph.SerializeToString())
    monkeypatch.setattr(ready_graphs, "GRAPHS", damaged)
    with pytest.raises(RepositoryError, match="does not give the file that its manifest describes"):
        ready_graphs.install(tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_checkpoint_is_halved_as_a_whole_or_not_at_all(tmp_path, checkpoint, capsys):
    def halve(source, output):
        options = ["--halve", str(source), str(output)]
        return run_module("demo.ready_graphs", ready_graphs, options)

    half = tmp_path / "half.safetensors"
    assert halve(checkpoint, half) == 0
    found, whole = read_weights(half), read_weights(checkpoint)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name].half()) for name in whole)
    name = next(iter(whole))
    whole[name] = torch.full_like(whole[name], 1e6)
    torch.save({"model": whole}, tmp_path / "large.pth")
    assert halve(tmp_path / "large.pth", tmp_path / "none.safetensors") == 1
    assert f"'{name}' is beyond half precision's range" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()
