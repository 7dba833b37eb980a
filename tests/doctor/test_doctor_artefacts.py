"""The doctor: what is wrong with the files that a build installed, and what to do."""

import json
import os
import shutil

import onnx
import pytest
from support.doctor_runs import examine


def test_a_flipped_byte_in_an_artefact_is_found(copied):
    weights = copied / "ram_head" / "1" / "model.onnx.data"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    text = "ram_head/1/model.onnx.data is not what was built (SHA-256 differs)"
    status, found = examine(copied)
    assert (status, found.keys()) == (2, {"artefacts"})
    assert found["artefacts"] == ["error", text, found["artefacts"][2]]
    assert found["artefacts"][2].startswith("run 'make model' again")


def test_a_missing_artefact_is_named(copied):
    (copied / "ram_encoder" / "1" / "model.onnx.data").unlink()
    _, found = examine(copied)
    assert found["artefacts"][:2] == ["error", "ram_encoder/1/model.onnx.data is missing"]


def test_an_interrupted_build_is_known_by_its_missing_manifest(copied):
    (copied / "ram" / "1" / "manifest.json").unlink()
    status, found = examine(copied)
    assert status == 2
    assert "its build was interrupted" in found["artefacts"][1]
    assert found["artefacts"][2].startswith("run 'make model'")


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_without_a_model_there_is_one_error_with_one_remedy(copied, profile):
    manifest = copied / "ram" / "1" / "manifest.json"
    for name in json.loads(manifest.read_text())["artefacts"]:
        (copied / name).unlink()
    manifest.unlink()
    _, found = examine(copied, "--profile", profile)
    assert found["artefacts"][2] == "run 'make model', or 'make demo' for a toy"
    assert found.keys() - {"artefacts", "GPUs", "GPU memory"} <= {"Pillow", "numpy"}
    assert profile == "gpu" or found.keys() == {"artefacts"}


def test_a_vocabulary_that_lost_a_tag_is_shorter_than_the_logits(copied):
    path = copied / "ram_postprocess" / "1" / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    _, found = examine(copied)
    assert found["vocabulary"][1] == "39 tags, but ram_head/1/model.onnx has 40"
    assert "make model" in found["vocabulary"][2]


def test_the_half_precision_graph_is_looked_at_too(copied):
    shutil.copy(copied / "ram_encoder/1/half.onnx", copied / "ram_head/1/half.onnx")
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/half.onnx: has no tensor 'logits'"


def test_a_truncated_vocabulary_is_told(copied):
    path = copied / "ram_postprocess" / "1" / "vocabulary.json"
    path.write_text(path.read_text()[:-50])
    _, found = examine(copied)
    assert "cut short" in found["vocabulary"][1]


def test_an_image_size_that_is_not_the_graphs_is_told(copied):
    (copied / "ram_preprocess" / "1" / "variant.json").write_text('{"image_size": 224}')
    _, found = examine(copied)
    assert found["image size"][1] == "224 px, but ram_encoder/1/model.onnx has 96"


def test_two_image_sizes_are_told(copied):
    (copied / "ram_pixels_check" / "1" / "variant.json").write_text('{"image_size": 224}')
    _, found = examine(copied)
    assert found["image size of pixels"][1] == (
        "ram_preprocess/1/variant.json has 96 px, ram_pixels_check/1/variant.json has 224"
    )


def test_a_graph_that_is_none_is_told_in_a_line(copied):
    (copied / "ram_head" / "1" / "model.onnx").write_text("<html>not found</html>")
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/model.onnx: is not an ONNX graph"


@pytest.mark.parametrize(
    "manifest",
    [
        [1],
        "x",
        {"artefacts": ["a"]},
        {"variant": []},
        {"variant": {"image_size": "a"}},
        {"artefacts": {"a\0b": "1234"}},
    ],
)
def test_a_manifest_that_nobody_wrote_is_told_in_findings(copied, manifest):
    path = copied / "ram" / "1" / "manifest.json"
    if isinstance(manifest, dict):
        manifest = json.loads(path.read_text()) | manifest
    path.write_text(json.dumps(manifest))
    for profile in ("cpu", "gpu"):
        status, found = examine(copied, "--profile", profile)
        assert status >= 1 and found.keys() & {"artefacts", "shared memory"}


def test_logits_of_one_dimension_are_told(copied):
    path = copied / "ram_head" / "1" / "model.onnx"
    graph = onnx.load(path, load_external_data=False)
    del graph.graph.output[0].type.tensor_type.shape.dim[1:]
    onnx.save(graph, path)
    _, found = examine(copied)
    assert found["vocabulary"][1] == "ram_head/1/model.onnx: 'logits' has 1 dimensions"
