"""Checkpoints, good and bad: what is told of them."""

import pickle

import pytest
import safetensors.torch
import torch
from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import load_model, published_name, read_weights
from ram_triton.model.noise import published_variant
from ram_triton.model.ram import RAM
from ram_triton.model.variant import detect_variant
from support.golden_checkpoint import golden_weights


@pytest.fixture
def weights():
    return golden_weights()


@pytest.fixture
def save(tmp_path):
    def save_weights(weights, name="checkpoint.pth"):
        torch.save({"model": weights}, tmp_path / name)
        return tmp_path / name

    return save_weights


@pytest.mark.parametrize("backbone", ["swin_b", "swin_l"])
@pytest.mark.parametrize("image_size", [224, 384])
def test_the_four_published_variants_are_read_off_their_weights(backbone, image_size):
    variant = published_variant(backbone, image_size, num_tags=4585)
    with torch.device("meta"):
        model = RAM(variant)
    shapes = {published_name(name): tuple(t.shape) for name, t in model.state_dict().items()}
    assert detect_variant(shapes) == variant
    assert str(variant) == f"{backbone} at {image_size} px with 4585 tags"
    assert shapes["visual_encoder.layers.0.downsample.reduction.weight"][1] == 4 * variant.embed_dim


def test_parts_for_training_and_rebuilt_buffers_are_passed_over(weights, save):
    extra = {
        "tag_encoder.x": torch.ones(1),
        "text_decoder.x": torch.ones(1),
        "visual_encoder.layers.0.blocks.1.attn_mask": torch.ones(1),
    }
    assert read_weights(save(weights | extra)).keys() == weights.keys()


def test_the_oldest_name_of_the_head_is_understood(weights, save):
    old = {name.replace("tagging_head.", "vision_multi."): t for name, t in weights.items()}
    assert load_model(save(old)).variant.num_tags == 40


def test_safetensors_and_half_precision_are_read(weights, tmp_path):
    path = tmp_path / "half.safetensors"
    safetensors.torch.save_file({name: t.half() for name, t in weights.items()}, path)
    assert load_model(path).label_embed.dtype == torch.float32


def refusal(path, **requested):
    with pytest.raises(CheckpointError) as refused:
        load_model(path, **requested)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("tags, tags, tags")
        assert "is not a" in refusal(tmp_path / name)
    (tmp_path / "empty.pth").touch()
    assert "is not a checkpoint" in refusal(tmp_path / "empty.pth")


def test_a_truncated_file_is_refused_as_such(weights, save, tmp_path):
    path = save(weights)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in refusal(path)
    safetensors.torch.save_file(weights, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-2000])
    assert "truncated" in refusal(tmp_path / "cut.safetensors")


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path):
    class Intruder:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "intruder.pth"
    path.write_bytes(pickle.dumps({"model": Intruder()}))
    assert "without running code" in refusal(path)
    torch.save({"model": Intruder()}, path)
    assert "without running code" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_something_else_than_weights_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "contains a list in place of weights" in refusal(tmp_path / "list.pth")
    torch.save({"model": {"epoch": 3}}, tmp_path / "number.pth")
    assert "'epoch' is a int, not a tensor" in refusal(tmp_path / "number.pth")
    torch.save({"model": {"weight": torch.ones(2)}}, tmp_path / "other.pth")
    assert "not the weights of a RAM" in refusal(tmp_path / "other.pth")


def test_missing_unexpected_and_misshapen_weights_are_named_with_the_variant(weights, save):
    weights["extra.weight"] = torch.ones(1)
    weights["fc.weight"] = torch.ones(2, 96)
    for name in [name for name in weights if ".blocks.0.norm1." in name]:
        del weights[name]
    message = refusal(save(weights))
    assert "look like swin(24 wide, depths 2/2/2/2) at 96 px with 40 tags" in message
    assert "8 missing (visual_encoder.layers.0.blocks.0.norm1.bias," in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 misshapen (fc.weight (2, 96) instead of (1, 96))" in message


def test_another_variant_than_asked_for_is_refused(weights, save):
    message = refusal(save(weights), backbone="swin_l", image_size=384)
    assert "look like swin(24 wide, depths 2/2/2/2) at 96 px" in message
    assert message.endswith("not like swin_l at 384 px")


def test_ram_plus_plus_with_too_few_descriptions_or_of_another_width_is_refused(weights, save):
    plus = weights | {"reweight_scale": torch.ones(())}
    message = refusal(save(plus))
    assert "RAM++ has 51 descriptions per tag, but 'label_embed' has 40 rows" in message
    message = refusal(save(plus | {"label_embed": torch.ones(2 * 51, 63)}))
    assert "RAM++ compares images and labels, but they are 64 and 63 wide" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_refused(weights, save, value):
    weights["fc.bias"][:] = value
    assert "'fc.bias' contains something other than finite numbers" in refusal(save(weights))


def test_names_that_are_no_text_and_shapes_that_no_ram_has_are_refused(weights, save):
    assert "not a tensor" in refusal(save({1: torch.ones(1)}))
    table = "visual_encoder.layers.0.blocks.0.attn.relative_position_bias_table"
    assert "a RAM cannot have weights of these shapes" in refusal(
        save(weights | {table: torch.ones(1, 0)})
    )
