"""Where training starts from: Swin weights under both names, and RAMs with other vocabularies."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import load_model, published_name, random_model, save_model
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant
from ram_triton.training.model import TrainingModel, published_state_dict
from ram_triton.training.starting_weights import (
    from_ram,
    from_scratch,
    from_swin,
    load_swin,
    load_text,
)
from ram_triton.training.text import TextParts
from support.golden_checkpoint import GOLDEN, golden_weights

VARIANT = Variant(
    image_size=64,
    embed_dim=8,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 2, 4),
    image_width=12,
    label_width=20,
    num_tags=6,
    hidden_size=16,
    num_layers=2,
    intermediate_size=24,
)
TABLE = "layers.2.blocks.1.attn.relative_position_bias_table"


pytestmark = pytest.mark.usefixtures("one_thread")


def labels(tags=6, width=20):
    return torch.randn(tags, width, generator=torch.Generator().manual_seed(tags))


def pixels(size=64):
    shape = (2, size, size, 3)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def swin_tokens(model, size=64):
    images = pixels(size).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        return model.encoder.swin.eval().forward_features(images)


@pytest.fixture
def trained():
    return random_model(VARIANT)


@pytest.fixture
def timm_weights(trained):
    return trained.encoder.swin.state_dict() | {
        "head.fc.weight": torch.ones(3, 64),
        "head.fc.bias": torch.ones(3),
    }


@pytest.fixture
def microsoft_weights(trained):
    named = {
        published_name(f"encoder.swin.{name}").removeprefix("visual_encoder."): tensor
        for name, tensor in trained.encoder.swin.state_dict().items()
    }
    return named | {
        "head.weight": torch.ones(3, 64),
        "head.bias": torch.ones(3),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(4, 4, dtype=torch.long),
        "layers.0.blocks.1.attn_mask": torch.ones(1),
    }


@pytest.fixture
def save(tmp_path):
    def save_weights(weights, name="weights.pth", under_model=False):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(weights, path)
        else:
            torch.save({"model": weights} if under_model else weights, path)
        return path

    return save_weights


def test_swin_weights_under_microsofts_and_timms_names_are_the_same(
    trained, timm_weights, microsoft_weights, save
):
    expected = swin_tokens(trained)
    for path in (
        save(timm_weights, "timm.safetensors"),
        save(timm_weights, "timm.pth"),
        save(microsoft_weights, "microsoft.pth", under_model=True),
        save(microsoft_weights, "microsoft.safetensors"),
    ):
        model = from_swin(path, VARIANT, labels())
        torch.testing.assert_close(swin_tokens(model), expected, rtol=0, atol=0)
        assert torch.equal(model.label_embed, labels())


def test_microsofts_names_give_the_references_own_embeddings(save):
    weights, golden = golden_weights(), np.load(GOLDEN / "golden_tiny.npz")
    prefix = "visual_encoder."
    swin = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    variant = load_model(save(weights, "ram.pth")).variant
    model = RAM(variant).eval()
    load_swin(model.encoder.swin, save(swin, "swin.pth"))
    with torch.inference_mode():
        model.encoder.projection.weight.copy_(weights["image_proj.weight"])
        model.encoder.projection.bias.copy_(weights["image_proj.bias"])
        image_embeds = model.encoder(torch.from_numpy(golden["pixels"]))
    np.testing.assert_allclose(image_embeds, golden["embeds"], atol=1e-4)


@pytest.mark.parametrize("naming", ["timm_weights", "microsoft_weights"])
def test_position_tables_are_fitted_to_other_windows(naming, request, save, timm_weights):
    weights, told = request.getfixturevalue(naming), []
    larger = replace(VARIANT, image_size=224)
    model = from_swin(save(weights), larger, labels(), told.append)
    assert model.encoder.swin.state_dict()[TABLE].shape == (13**2, 2)
    assert told[0].endswith("fitted 5 position tables to windows of 7 × 7 tokens")
    assert swin_tokens(model, 224).isfinite().all()
    same = model.encoder.swin.state_dict()["layers.3.downsample.reduction.weight"]
    assert torch.equal(same, timm_weights["layers.3.downsample.reduction.weight"])


def test_a_window_of_7_becomes_one_of_12_and_keeps_the_shape_of_its_table(save):
    small, large = replace(VARIANT, image_size=224), replace(VARIANT, image_size=384)
    model = random_model(small)
    weights = model.encoder.swin.state_dict()
    # A bias that falls off with distance from the middle, as trained ones do.
    y, x = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-6.0, 7), indexing="ij")
    weights[TABLE] = torch.stack([-(y.abs() + x.abs()), x], dim=-1).flatten(0, 1)
    fitted = from_swin(save(weights), large, labels()).encoder.swin.state_dict()[TABLE]
    assert fitted.shape == (23**2, 2)
    fall_off, slope = fitted.T.unflatten(1, (23, 23))
    assert fall_off[11, 11] == pytest.approx(0, abs=1e-4)
    assert fall_off[11, 10] == pytest.approx(-1, abs=1e-4)  # the nearest keep their bias
    assert fall_off.min() == pytest.approx(-12, abs=0.2)  # and the farthest theirs
    assert (slope[:, 1:] >= slope[:, :-1]).all()


def test_tables_of_the_same_window_are_left_alone(timm_weights, save):
    told = []
    model = from_swin(save(timm_weights), VARIANT, labels(), told.append)
    assert torch.equal(model.encoder.swin.state_dict()[TABLE], timm_weights[TABLE])
    assert told == []


def without_a_norm(weights):
    return {name: t for name, t in weights.items() if name != "norm.weight"}


def of_twice_the_width(weights):
    wide = RAM(replace(VARIANT, embed_dim=16)).encoder.swin
    return wide.state_dict()


def with_a_block_more(weights):
    # Under Microsoft's names, of which only the block is to be told.
    weights = {
        n.replace("layers.1.downsample", "layers.0.downsample")
        .replace("layers.2.downsample", "layers.1.downsample")
        .replace("layers.3.downsample", "layers.2.downsample"): t
        for n, t in weights.items()
    }
    return weights | {"layers.3.blocks.1.attn.relative_position_bias_table": torch.ones(9, 4)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_a_norm, "1 missing (norm.weight)"),
        (of_twice_the_width, "misshapen (layers.0.blocks.0.attn.proj.bias (16,) instead of (8,),"),
        (
            with_a_block_more,
            "Swin Transformer: 1 unexpected (layers.3.blocks.1.attn.relative_position_bias_table)",
        ),
        (lambda weights: {"anything": torch.ones(1)}, "missing (layers.0.blocks.0.attn.proj.bias,"),
    ],
)
def test_other_weights_are_refused_in_one_line(timm_weights, save, change, told):
    with pytest.raises(CheckpointError) as refused:
        from_swin(save(change(timm_weights)), VARIANT, labels())
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    for start in (lambda path: from_swin(path, VARIANT, labels()), lambda p: from_ram(p, labels())):
        with pytest.raises(CheckpointError, match="no such file"):
            start(tmp_path / "none.pth")


def test_label_embeddings_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 20\), not \(6, 20\)"):
        from_scratch(VARIANT, labels(5))


def test_from_scratch_draws_the_references_distributions():
    torch.manual_seed(0)
    variant = replace(VARIANT, hidden_size=96, intermediate_size=128)
    model = from_scratch(variant, labels())
    for layer in model.head.layers:
        assert layer.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.attention.query.weight.abs().max() > 3 * 0.02  # normal, not uniform
        assert not layer.contract.bias.any()
        assert (layer.norm.weight == 1).all()
    table = model.encoder.swin.state_dict()[TABLE]
    assert 0 < table.abs().max() < 0.1
    expand = model.encoder.swin.layers[0].blocks[0].mlp.fc1  # Glorot's rule
    assert expand.weight.std().item() == pytest.approx(
        (2 / sum(expand.weight.shape)) ** 0.5, rel=0.1
    )


@pytest.mark.parametrize("norm", [0.3, 1.0, 20.0])
def test_labels_tell_themselves_apart_whatever_their_norm(norm):
    variant = replace(VARIANT, hidden_size=96, num_tags=50, label_width=64)
    label_embed = norm * torch.nn.functional.normalize(labels(50, 64), dim=1)
    projection = from_scratch(variant, label_embed).head.label_projection
    assert projection(label_embed).std().item() == pytest.approx(0.2, rel=0.1)


def test_from_scratch_is_decided_by_the_seed():
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(from_scratch(VARIANT, labels()).head.layers[0].expand.weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize("name", ["ram.pth", "ram.safetensors"])
def test_another_vocabulary_keeps_the_logits_of_shared_tags(trained, tmp_path, name):
    save_model(trained, tmp_path / name)
    new = torch.cat([labels(3), trained.label_embed.detach()[[4, 1]]])
    told = []
    model = from_ram(tmp_path / name, new, log=told.append).eval()
    assert model.variant == replace(VARIANT, num_tags=5)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels())[:, 3:], trained(pixels())[:, [4, 1]])
    assert told == []


def test_label_embeddings_of_another_width_start_their_projection_anew(trained, tmp_path):
    save_model(trained, tmp_path / "ram.pth")
    told = []
    model = from_ram(tmp_path / "ram.pth", labels(width=33), log=told.append).eval()
    assert "20 wide, the new ones 33: the label projection starts from random weights" in told[0]
    assert model(pixels()).isfinite().all()
    projected = "head.label_projection."
    kept = {n: t for n, t in trained.state_dict().items() if not n.startswith(projected)}
    for weight, tensor in kept.items():
        assert weight == "label_embed" or torch.equal(model.state_dict()[weight], tensor)


def test_a_ram_goes_to_another_image_size(trained, tmp_path):
    save_model(trained, tmp_path / "ram.pth")
    told = []
    model = from_ram(tmp_path / "ram.pth", labels(), image_size=96, log=told.append).eval()
    assert model.variant.image_size == 96
    assert "from 64 to 96 px" in told[0]
    assert model(pixels(96)).isfinite().all()


def with_text(ram, vocabulary=20):
    text = TextParts(VARIANT, ram.head, vocabulary, layers=2, heads=2, positions=40)
    return TrainingModel(ram, text)


@pytest.mark.parametrize("name", ["ram.pth", "ram.safetensors"])
def test_text_parts_come_along_where_the_checkpoint_has_them(trained, save, name):
    first = with_text(trained)
    path = save(published_state_dict(first), name)
    second = with_text(from_ram(path, labels(3)))
    load_text(second.text, path)
    expected = first.text.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in second.text.state_dict().items())
    with pytest.raises(CheckpointError, match=r"misshapen .*\(20, 16\) instead of \(25, 16\)"):
        load_text(with_text(from_ram(path, labels(3)), vocabulary=25).text, path)


def test_text_parts_are_found_where_the_rest_of_a_wrapped_checkpoint_is(trained, tmp_path):
    weights = published_state_dict(first := with_text(trained))
    torch.save({"state_dict": {f"net.{n}": t for n, t in weights.items()}}, tmp_path / "ram.ckpt")
    second = with_text(from_ram(tmp_path / "ram.ckpt", labels(3)))
    load_text(second.text, tmp_path / "ram.ckpt")
    expected = first.text.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in second.text.state_dict().items())


def test_a_checkpoint_without_text_parts_leaves_them_to_start_anew(trained, tmp_path):
    save_model(trained, tmp_path / "ram.pth")
    model, told = with_text(trained), []
    before = published_state_dict(model)
    load_text(model.text, tmp_path / "ram.pth", told.append)
    assert "they start from random weights" in told[0]
    assert all(torch.equal(t, before[n]) for n, t in published_state_dict(model).items())
