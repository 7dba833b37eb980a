"""RAM++: descriptions weighed per image, from the checkpoint to the server's answer."""

import json

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as grpc
from ram_triton.build import BuildRequest, build
from ram_triton.engines.onnxruntime import RoundedGraph
from ram_triton.engines.openvino import CompiledGraph, openvino_tagger
from ram_triton.engines.tagger import chain, torch_tagger
from ram_triton.errors import CheckpointError
from ram_triton.graphs.export import export_open_head
from ram_triton.model.checkpoint import load_model, save_model
from ram_triton.model.ram import weigh_descriptions
from ram_triton.model.variant import Variant
from ram_triton.parity.limits import HALF_LIMITS
from ram_triton.server import TritonServer
from ram_triton.server_code import preprocess
from ram_triton.training.starting_weights import from_ram
from support.golden_checkpoint import golden_weights
from support.pipeline import HEADS, PICTURES, exports_of, use_float32
from support.ram_plus import DESCRIPTIONS, NUM_TAGS, direct_labels, plus_weights
from support.requests_to_ram import ask, ask_open, tags_of

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def plus_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("plus") / "tiny_plus.pth"
    torch.save({"model": plus_weights()}, path)
    return path


@pytest.fixture(scope="module")
def plus_model(plus_checkpoint):
    return load_model(plus_checkpoint)


@pytest.fixture(scope="module")
def plus_repository(plus_checkpoint, vocabulary_folder, repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("repository") / "models"
    with exports_of(repository, anew=HEADS):  # the encoder is the tiny RAM's
        build(BuildRequest(plus_checkpoint, vocabulary_folder, root, PICTURES))
    use_float32(root)
    return root


@pytest.fixture(scope="module")
def direct_logits(plus_model):
    """Score pixels with labels that were weighed the wasteful way."""
    weights = plus_weights()

    def score(pixels):
        with torch.inference_mode():
            image_embeds = plus_model.encoder(torch.from_numpy(pixels))
            labels = direct_labels(
                image_embeds[:, 0], weights["label_embed"], weights["reweight_scale"]
            )
            rows = [
                plus_model.head(image[None], own)
                for image, own in zip(image_embeds, labels, strict=True)
            ]
            return torch.cat(rows).numpy()

    return score


def test_the_checkpoint_itself_tells_that_it_is_ram_plus_plus(plus_model, model):
    assert plus_model.variant.num_tags == NUM_TAGS
    assert plus_model.variant.descriptions == DESCRIPTIONS
    assert str(plus_model.variant) == "RAM++, swin(24 wide, depths 2/2/2/2) at 96 px with 40 tags"
    assert (model.variant.architecture, model.variant.descriptions) == ("RAM", 1)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_descriptions_are_weighed_as_a_direct_computation_does(batch):
    generator = torch.Generator().manual_seed(batch)
    mean_embed = torch.randn(batch, 24, generator=generator)
    label_embed = torch.randn(7 * DESCRIPTIONS, 24, generator=generator)
    scale = torch.tensor(2.5)
    expected = direct_labels(mean_embed, label_embed, scale)
    weighed = weigh_descriptions(
        mean_embed, label_embed.unflatten(0, (7, DESCRIPTIONS)), scale.exp()
    )
    torch.testing.assert_close(weighed, expected, atol=1e-5, rtol=1e-5)
    spread = (expected - label_embed.unflatten(0, (7, DESCRIPTIONS)).mean(1)).abs().max()
    assert spread > 0.5, "weights that are all alike would show nothing"


def test_pytorch_and_the_graphs_compute_what_a_direct_computation_does(
    plus_model, plus_repository, golden, direct_logits
):
    expected = direct_logits(golden["pixels"])
    np.testing.assert_allclose(torch_tagger(plus_model)(golden["pixels"]), expected, atol=TOLERANCE)
    tag = openvino_tagger(
        plus_repository / "ram_encoder/1/model.onnx", plus_repository / "ram_head/1/model.onnx"
    )
    for batch in (1, 2, 3):
        np.testing.assert_allclose(tag(golden["pixels"][:batch]), expected[:batch], atol=TOLERANCE)


def test_a_tag_whose_descriptions_are_all_the_same_is_rams_tag(golden, tmp_path):
    weights = golden_weights()
    weights["label_embed"] = weights["label_embed"].repeat_interleave(DESCRIPTIONS, dim=0)
    torch.save({"model": weights | {"reweight_scale": torch.tensor(1.0)}}, tmp_path / "same.pth")
    logits = torch_tagger(load_model(tmp_path / "same.pth"))(golden["pixels"])
    np.testing.assert_allclose(logits, golden["logits"], atol=TOLERANCE)


def test_no_tensor_has_every_description_of_every_tag_for_every_image(plus_repository):
    path = plus_repository / "ram_head/1/model.onnx"
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    stored = {t.name: tuple(t.dims) for t in graph.initializer if DESCRIPTIONS in t.dims}
    assert list(stored.values()) == [(NUM_TAGS, DESCRIPTIONS, 64)], "they are stored once"
    shapes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in graph.value_info
        if value.name not in stored
    ]
    weighing = [shape for shape in shapes if DESCRIPTIONS in shape]
    assert weighing, "shape inference must have seen the weights"
    assert all(sorted(map(str, s)) == ["40", "51", "batch"] for s in weighing)


def test_the_manifest_says_which_of_the_two_it_is(plus_repository, plus_model, model):
    written = json.loads((plus_repository / "ram/1/manifest.json").read_text())["variant"]
    assert written["architecture"] == "RAM++"
    assert Variant.from_dict(written) == plus_model.variant
    assert Variant.from_dict(model.variant.as_dict()) == model.variant


def test_half_precision_stays_within_its_limits(plus_repository, golden, direct_logits):
    names = "ram_encoder/1/half.onnx", "ram_head/1/half.onnx"
    logits = chain(*(RoundedGraph(plus_repository / name) for name in names))(golden["pixels"])
    difference = np.abs(logits - direct_logits(golden["pixels"])).max()
    assert 1e-4 < difference <= HALF_LIMITS["float16"].logit_difference


def test_the_server_answers_with_its_logits_and_tags(
    plus_repository, direct_logits, picture_files, vocabulary
):
    images = [path.read_bytes() for path in picture_files[:3]]
    expected = direct_logits(np.stack([preprocess(image, 96) for image in images]))
    with (
        TritonServer(plus_repository) as server,
        grpc.InferenceServerClient(server.grpc) as client,
    ):
        answer = ask(client, images, outputs=("logits", "tag_ids", "count"))
        opened = ask_open(client, images, ["tag 39", "tag 2", "标签17"], threshold=0)
    np.testing.assert_allclose(answer["logits"], expected, atol=TOLERANCE)
    scores = 1 / (1 + np.exp(-expected))
    for row, ids, count in zip(scores, answer["tag_ids"], answer["count"][:, 0], strict=True):
        passing = np.flatnonzero(row > vocabulary.thresholds)
        assert 0 < count < NUM_TAGS
        assert sorted(ids[:count]) == passing.tolist()
    for row in range(len(images)):
        own = {tag[0]: tag[2] for tag in tags_of(opened, row)}
        assert own == pytest.approx({f"tag {n}": scores[row, n] for n in (39, 2, 17)}, abs=1e-4)


def test_its_head_that_is_given_labels_takes_a_labels_descriptions_in_one_row(
    plus_model, golden, direct_logits, tmp_path
):
    export_open_head(plus_model, tmp_path / "open.onnx")
    head = CompiledGraph(tmp_path / "open.onnx")
    rows = plus_model.descriptions().flatten(1).detach().numpy()
    chosen = [39, 2, 2, 17]
    logits = head(image_embeds=golden["embeds"], label_embeds=rows[chosen])["logits"]
    expected = direct_logits(golden["pixels"])[:, chosen]
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    # One embedding, repeated, is itself.
    ram = golden_weights()["label_embed"].numpy()[:5]
    logits = head(image_embeds=golden["embeds"], label_embeds=np.tile(ram, DESCRIPTIONS))
    np.testing.assert_allclose(logits["logits"], golden["logits"][:, :5], atol=TOLERANCE)


def test_a_saved_model_loads_back(plus_model, golden, tmp_path):
    save_model(plus_model, tmp_path / "copy.safetensors")
    logits = torch_tagger(load_model(tmp_path / "copy.safetensors"))(golden["pixels"])
    expected = torch_tagger(plus_model)(golden["pixels"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=TOLERANCE)


def test_training_does_not_start_from_it(plus_checkpoint):
    with pytest.raises(CheckpointError, match="a RAM\\+\\+ checkpoint; training starts from a RAM"):
        from_ram(plus_checkpoint, torch.ones(3, 64))
