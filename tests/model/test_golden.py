"""The model against the reference implementation's own outputs."""

import numpy as np
import pytest
import torch
from ram_triton.engines.openvino import openvino_tagger
from ram_triton.engines.tagger import torch_tagger
from ram_triton.graphs.export import export_model
from ram_triton.model.checkpoint import load_model, save_model

TOLERANCE = 1e-4


def test_pytorch_computes_the_reference_embeddings_and_logits(model, golden):
    with torch.inference_mode():
        image_embeds = model.encoder(torch.from_numpy(golden["pixels"]))
    np.testing.assert_allclose(image_embeds, golden["embeds"], atol=TOLERANCE)
    np.testing.assert_allclose(
        torch_tagger(model)(golden["pixels"]), golden["logits"], atol=TOLERANCE
    )


def test_exported_graphs_compute_the_reference_logits_at_any_batch(repository, golden):
    tag = openvino_tagger(
        repository / "ram_encoder/1/model.onnx", repository / "ram_head/1/model.onnx"
    )
    for batch in (1, 2, 3):
        logits = tag(golden["pixels"][:batch])
        np.testing.assert_allclose(logits, golden["logits"][:batch], atol=TOLERANCE)


def test_a_saved_model_loads_back_from_both_formats(model, golden, tmp_path):
    for name in ("copy.pth", "copy.safetensors"):
        save_model(model, tmp_path / name)
        logits = torch_tagger(load_model(tmp_path / name))(golden["pixels"])
        np.testing.assert_allclose(logits, golden["logits"], atol=TOLERANCE)


@pytest.mark.slow
def test_export_leaves_the_model_itself_unchanged(model, golden, tmp_path):
    export_model(model, tmp_path / "encoder.onnx", tmp_path / "head.onnx")
    np.testing.assert_allclose(
        torch_tagger(model)(golden["pixels"]), golden["logits"], atol=TOLERANCE
    )
