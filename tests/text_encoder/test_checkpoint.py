"""What a text encoder is built of: a checkpoint, and sentences."""

import shutil
import subprocess
import sys

import pytest
import torch
from ram_triton.errors import TextEncoderError
from ram_triton.repository.layout import OPTIONAL_MODELS
from ram_triton.text_encoder.checkpoint import load_text_encoder
from ram_triton.text_encoder.templates import choose_templates, ram_templates, read_templates
from support.pipeline import run_command
from support.tiny_clip import WIDTH, save_for_open_clip, tiny_clip


def test_it_is_loaded_first_in_a_process_of_its_own():
    """torchvision's operators have to be declared before transformers asks for them."""
    command = "from ram_triton.text_encoder.checkpoint import load_text_encoder"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("prefix", ["", "text."])
def test_open_clips_names_of_the_weights_are_the_same_model(tmp_path, act, prefix):
    model = tiny_clip(act)
    folder = save_for_open_clip(model, tmp_path / "open_clip", prefix)
    encoder = load_text_encoder(folder)
    ids = torch.tensor([[0, 5, 9, 3, 1], [0, 7, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.inference_mode():
        expected = model(ids, mask).text_embeds
        embeds = encoder.tower(ids.int(), mask.int())
    torch.testing.assert_close(embeds, expected / expected.norm(dim=1, keepdim=True))


def test_the_templates_are_those_of_ram():
    templates = ram_templates()
    assert len(templates) == len(set(templates)) == 63
    assert {
        "itap of my {name}.",
        "This is a photo of the hard to see {name}.",
        "This is {a} photo".replace("{a}", "a") + " of one {name} in the scene.",
        "There is {a} {name} in the scene.",
    } <= set(templates)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "no such folder"),
        (
            lambda folder: (folder / "config.json").unlink(),
            "config.json or open_clip_config.json is missing",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "JSONDecodeError"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "t5"}'), "'t5'"),
        (lambda folder: (folder / "model.safetensors").write_text("none"), "Safetensor"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_one_line(
    clip_folder, copied, tmp_path, capsys, make, message
):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    changed = make(folder)
    chosen = changed if hasattr(changed, "is_dir") else folder
    before = sorted(path.name for path in copied.iterdir())
    arguments = ["--checkpoint", str(chosen), "--repository", str(copied)]
    assert run_command("text-encoder", arguments) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(path.name for path in copied.iterdir()) == before


def test_a_repository_without_a_model_or_with_other_labels_is_refused(clip_folder, copied, capsys):
    assert (
        run_command("text-encoder", ["--checkpoint", str(clip_folder), "--repository", "none"]) == 1
    )
    assert "none: contains no model: run 'make model'" in capsys.readouterr().err
    manifest = copied / "ram/1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"label_width": 64', '"label_width": 512'))
    assert (
        run_command("text-encoder", ["--checkpoint", str(clip_folder), "--repository", str(copied)])
        == 1
    )
    assert (
        f"are {WIDTH} wide, but the model in {copied} has labels of 512" in capsys.readouterr().err
    )


def test_templates_may_be_ones_own(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("a drawing of {a} {name}\n\n{name}\n")
    assert read_templates(path) == ["a drawing of {a} {name}", "{name}"]
    for text in ("no name", "{name} {other}", "{name} {"):
        path.write_text(f"{{name}}\n{text}\n")
        with pytest.raises(TextEncoderError, match=r"templates\.txt, line 2: .* is not a sentence"):
            read_templates(path)
    path.write_text("\n")
    with pytest.raises(TextEncoderError, match=r"templates\.txt: contains no sentences"):
        read_templates(path)


def test_rams_sentences_are_for_a_clip_only(tmp_path):
    assert choose_templates("CLIP") == ram_templates()
    with pytest.raises(TextEncoderError, match="sentence-BERT needs sentences of its own"):
        choose_templates("sentence-BERT")
    (tmp_path / "one.txt").write_text("a {name}")
    assert choose_templates("sentence-BERT", tmp_path / "one.txt") == ["a {name}"]


def test_every_model_that_is_added_has_its_configs():
    assert sorted(path.name for path in OPTIONAL_MODELS.iterdir()) == [
        "ram_open_text",
        "ram_open_text_encoder",
    ]
