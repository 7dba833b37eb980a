"""The head that is given its labels: any labels, any number, the fixed head's logits."""

import numpy as np
import pytest
import torch
from ram_triton.engines.openvino import CompiledGraph, openvino_tagger
from ram_triton.engines.tagger import torch_tagger
from ram_triton.graphs.export import export_open_head

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("open") / "model.onnx"
    export_open_head(model, path)
    return path


@pytest.fixture(scope="module")
def score(graph):
    """Run the graph on (batch, tokens, width) and (labels, label_width); returns the logits."""
    head = CompiledGraph(graph)
    return lambda image_embeds, label_embeds: head(
        image_embeds=image_embeds, label_embeds=label_embeds
    )["logits"]


@pytest.fixture(scope="module")
def labels(model):
    return model.label_embed.detach().numpy()


def test_with_the_models_own_labels_it_gives_the_references_logits(score, golden, labels):
    logits = score(golden["embeds"], labels)
    np.testing.assert_allclose(logits, golden["logits"], atol=TOLERANCE)


@pytest.mark.parametrize(
    "chosen", [[0], [39], [3, 17], range(39, -1, -1), [5, 5, 5], np.arange(400) % 40], ids=len
)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_any_choice_of_labels_gives_the_fixed_heads_logits_for_them(
    score, golden, labels, chosen, batch
):
    chosen = list(chosen)
    logits = score(golden["embeds"][:batch], labels[chosen])
    np.testing.assert_allclose(logits, golden["logits"][:batch, chosen], atol=TOLERANCE)


def test_a_label_that_the_checkpoint_never_had_is_scored_as_pytorch_does(score, golden, model):
    new = np.random.default_rng(0).normal(size=(7, model.variant.label_width)).astype(np.float32)
    with torch.inference_mode():
        expected = model.head(*map(torch.from_numpy, (golden["embeds"], new)))
    np.testing.assert_allclose(score(golden["embeds"], new), expected, atol=TOLERANCE)


def test_it_agrees_with_the_graph_whose_labels_are_folded_in(
    score, repository, model, golden, labels
):
    fixed = openvino_tagger(
        repository / "ram_encoder/1/model.onnx", repository / "ram_head/1/model.onnx"
    )(golden["pixels"])
    opened = score(golden["embeds"], labels)
    np.testing.assert_allclose(opened, fixed, atol=TOLERANCE)
    np.testing.assert_allclose(opened, torch_tagger(model)(golden["pixels"]), atol=TOLERANCE)
