"""Checkpoints, good and bad: what is told of them."""

import argparse
import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import safetensors.torch
import torch
from ram_triton.errors import CheckpointError
from ram_triton.model.checkpoint import load_model, published_name, read_weights
from ram_triton.model.ram import RAM
from ram_triton.model.variant import detect_variant, published_variant
from ram_triton.model.weight_files import digest
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


def refusal(path, about=None, **requested):
    with pytest.raises(CheckpointError) as refused:
        load_model(path, **requested)
    message = str(refused.value)
    assert message.startswith(f"{about or path}: ") and "\n" not in message
    return message


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("tags, tags, tags")
        assert "is not a" in refusal(tmp_path / name)


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


WRAPPERS = {
    "published": lambda w: {"model": w},
    "bare": lambda w: w,
    "bare, with an epoch": lambda w: w | {"epoch": 3},
    "DataParallel": lambda w: {"model": {f"module.{k}": v for k, v in w.items()}},
    "DataParallel of a compiled model": lambda w: {
        f"module._orig_mod.{k}": v for k, v in w.items()
    },
    "Lightning": lambda w: {
        "epoch": 3,
        "state_dict": {f"model.{k}": v for k, v in w.items()} | {"loss.weight": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "hyper_parameters": {"lr": 1e-4},
    },
    "averaged by timm": lambda w: {"state_dict": worse(w), "state_dict_ema": w},
    "averaged, of several processes": lambda w: {
        "model": worse(w),
        "model_ema": {f"module.{k}": v for k, v in w.items()},
    },
    "averaged by torch": lambda w: {
        "model": {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in w.items()}
    },
    "averaged, in a table of its own": lambda w: {
        "model": worse(w),
        "ema": {"decay": 0.999, "shadow": w},
    },
    "averaged beside the trained": lambda w: {
        "state_dict": {f"model.{k}": v for k, v in worse(w).items()}
        | {f"ema_model.{k}": v for k, v in w.items()}
    },
    "a schema is not an average": lambda w: {"model": w, "schema": worse(w)},
}


def worse(weights):
    return {name: tensor + 1 for name, tensor in weights.items()}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_are_found_in_what_trainings_wrap_them_in(weights, tmp_path, wrapper):
    torch.save(WRAPPERS[wrapper](weights), tmp_path / "wrapped.pth")
    found = read_weights(tmp_path / "wrapped.pth")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert load_model(tmp_path / "wrapped.pth").variant.num_tags == 40


def split(weights, folder, ending, save, index=True):
    half = sorted(weights)[::2]
    parts = [
        {name: weights[name] for name in half},
        {name: tensor for name, tensor in weights.items() if name not in half},
    ]
    names = [f"model-0000{number}-of-00002{ending}" for number in (1, 2)]
    for name, part in zip(names, parts, strict=True):
        save(part, folder / name)
    if index:
        placed = {k: name for name, part in zip(names, parts, strict=True) for k in part}
        (folder / f"model{ending}.index.json").write_text(json.dumps({"weight_map": placed}))
    return [folder / name for name in names]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    ("ending", "save_file"), [(".safetensors", safetensors.torch.save_file), (".bin", torch.save)]
)
def test_a_folder_of_parts_is_read(weights, tmp_path, ending, save_file, index):
    parts = split(weights, tmp_path, ending, save_file, index)
    assert load_model(tmp_path).variant.num_tags == 40
    whole = digest(tmp_path)
    assert len(whole) == 64
    if index:
        assert load_model(tmp_path / f"model{ending}.index.json").variant.num_tags == 40
        assert digest(tmp_path / f"model{ending}.index.json") == whole
    save_file({"label_embed": torch.ones(2, 2)}, parts[1])
    assert digest(tmp_path) != whole
    parts[1].unlink()
    assert refusal(tmp_path, about=parts[1]).endswith("00002-of-00002" + ending + ": no such file")


def test_a_folder_with_one_checkpoint_is_that_and_with_two_is_refused(weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    assert load_model(tmp_path).variant.num_tags == 40
    assert digest(tmp_path) != digest(tmp_path / "model.safetensors")
    safetensors.torch.save_file(weights, tmp_path / "other.safetensors")
    assert "several checkpoints (model.safetensors, other.safetensors)" in refusal(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    assert "contains no checkpoint" in refusal(tmp_path)
    (tmp_path / "__0_0.distcp").touch()
    assert "dcp_to_torch" in refusal(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../x.bin"}}')
    message = refusal(tmp_path, about=tmp_path / "model.safetensors.index.json")
    assert "is not an index" in message


@pytest.mark.parametrize("name", ["renamed.pth", "renamed.ckpt", "renamed"])
def test_a_name_does_not_decide_what_a_file_is(weights, save, tmp_path, name):
    safetensors.torch.save_file(weights, tmp_path / name)
    assert load_model(tmp_path / name).variant.num_tags == 40
    assert load_model(save(weights, "renamed.safetensors")).variant.num_tags == 40


OTHER_FILES = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n": "Git LFS pointer",
    b"\n<!DOCTYPE html><html><title>Sign in</title>": "web page",
    b"\xef\xbb\xbf<HTML>": "web page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "XML",
    b"": "is an empty file",
    bytes(4096): "zeros",
    b"\x1f\x8b\x08" + bytes(9): "gzip",
    b"GGUF" + bytes(9): "quantised",
    b'{"error": "not found"}': "JSON",
    b"\x89HDF\r\n": "HDF5",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("contents", OTHER_FILES)
def test_what_is_not_a_checkpoint_is_named(tmp_path, contents, suffix):
    path = tmp_path / f"other{suffix}"
    path.write_bytes(contents)
    assert OTHER_FILES[contents] in refusal(path)


def test_archives_that_are_not_checkpoints_are_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pth")
    assert "TorchScript archive" in refusal(tmp_path / "script.pth")
    with zipfile.ZipFile(tmp_path / "images.pth", "w") as archive:
        archive.writestr("photos/cat.jpg", b"")
    assert "an archive with cat.jpg" in refusal(tmp_path / "images.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_needs_code_to_load_is_named_with_what_to_do(weights, tmp_path, zipped):
    path = tmp_path / "args.pth"
    contents = {"model": weights, "args": argparse.Namespace(lr=1e-4)}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "it contains argparse.Namespace; if you trust" in message
    command = message[message.index("import torch") : message.rindex('"')]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    assert load_model(tmp_path / "weights.pth").variant.num_tags == 40


def test_quantised_weights_are_refused_as_such(weights, save):
    name = "fc.weight"
    quantised = torch.quantize_per_tensor(weights[name], 0.1, 0, torch.qint8)
    assert "are quantised ('fc.weight' is qint8)" in refusal(save(weights | {name: quantised}))
    for kind in (torch.int8, torch.uint8, torch.float8_e4m3fn):
        message = refusal(save(weights | {name: weights[name].to(kind)}))
        assert "are quantised ('fc.weight' is " in message
    packed = weights | {"image_proj.qweight": torch.ones(2, dtype=torch.int32)}
    assert "are quantised ('image_proj.qweight' is int32)" in refusal(save(packed))
    packed = weights | {"fc._packed_params._packed_params": (torch.ones(2), None)}
    assert "are quantised ('fc._packed_params._packed_params' is " in refusal(save(packed))


def test_tensors_without_plain_numbers_are_refused(weights, save):
    name = "fc.weight"
    for tensor, what in (
        (weights[name].to("meta"), "is a meta tensor"),
        (weights[name].to_sparse(), "is sparse"),
        (weights[name].to(torch.int64), "is int64, not floating-point numbers"),
        (weights[name].to(torch.complex64), "is complex64, not floating-point numbers"),
    ):
        assert f"'{name}' {what}" in refusal(save(weights | {name: tensor}))
