"""`make vocabulary`: a list of names becomes a checkpoint that recognises them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ram_triton.build import BuildRequest, build
from ram_triton.engines.openvino import openvino_tagger
from ram_triton.engines.tagger import torch_tagger
from ram_triton.model.checkpoint import load_model
from ram_triton.repository.layout import NONE
from ram_triton.text_encoder.checkpoint import load_text_encoder
from ram_triton.text_encoder.templates import ram_templates
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH, THRESHOLDS, read_vocabulary
from support.pipeline import HEADS, PICTURES, exports_of, run_command
from support.ram_plus import plus_weights
from support.tiny_clip import save_for_transformers, tiny_clip

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
# A text encoder as somebody may bring one along: here each name has its own noise.
ENCODER = """
import zlib
import numpy as np

def embed(names, width=64):
    rows = [np.random.default_rng(zlib.crc32(n.encode())).normal(size=width) for n in names]
    return np.array(rows, np.float32)

def embed_narrowly(names):
    return embed(names, 63)

def embed_nothing(names):
    return np.full((len(names), 64), np.nan)

def embed_not(names):
    raise RuntimeError("no memory\\nat all")

def embed_with_words(names):
    return names

no_function = 1
"""


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    (tmp_path / "noise_encoder.py").write_text(ENCODER)
    (tmp_path / "wrong_encoder.py").write_text("def embed(")
    monkeypatch.syspath_prepend(tmp_path)
    return "noise_encoder:embed"


@pytest.fixture
def make(checkpoint, vocabulary_folder, tmp_path, capsys):
    """Run it on lines; returns its status, what it says on stderr, and the folder it made."""

    def run(lines, **options):
        names, output = tmp_path / "names.txt", tmp_path / "out" / "mine"
        names.write_text("\n".join(lines), encoding="utf-8")
        options = {
            "names": names,
            "output": output,
            "checkpoint": checkpoint,
            "vocabulary": vocabulary_folder,
        } | options
        status = run_command(
            "vocabulary",
            [
                str(part)
                for name, value in options.items()
                for part in (f"--{name.replace('_', '-')}", value)
            ],
        )
        return status, capsys.readouterr().err, Path(options["output"])

    return run


def test_known_names_keep_their_logits_chinese_names_and_thresholds(make, golden):
    status, said, folder = make(["tag 17", "TAG 3", "tag 30"])
    assert (status, said) == (0, "")
    logits = torch_tagger(load_model(folder / "ram.safetensors"))(golden["pixels"])
    np.testing.assert_allclose(logits, golden["logits"][:, [17, 3, 30]], atol=TOLERANCE)
    vocabulary = read_vocabulary(folder, 3)
    assert vocabulary.tags == ["tag 17", "tag 3", "tag 30"]
    assert vocabulary.tags_zh == ["标签17", "标签3", "标签30"]
    np.testing.assert_allclose(vocabulary.thresholds, [0.0018, 0.0008, 0.0008])


def test_names_are_known_by_what_ram_open_knows_them_by_chinese_ones_too(make, golden):
    status, said, folder = make(["标签17", "TAG_3.", "tag 30"])
    assert (status, said) == (0, "")
    logits = torch_tagger(load_model(folder / "ram.safetensors"))(golden["pixels"])
    np.testing.assert_allclose(logits, golden["logits"][:, [17, 3, 30]], atol=TOLERANCE)
    assert read_vocabulary(folder, 3).tags == ["tag 17", "tag 3", "tag 30"]


def test_names_of_several_tags_and_several_names_of_one_are_told_with_their_lines(make):
    status, said, folder = make(["标签3", "tag 5", "标签5"])
    names = folder.parents[1] / "names.txt"
    assert (status, said.splitlines()) == (
        1,
        [
            f"ram-triton vocabulary: {names}, line 1: '标签3' is the name of several tags: "
            "use 'tag 3' or 'tag 7'",
            f"ram-triton vocabulary: {names}, line 3: '标签5' is the same tag as 'tag 5'",
        ],
    )


def test_what_the_list_says_goes_before_what_the_checkpoint_knows(make):
    _, _, folder = make(["tag 17,甲,0.25", "tag 3,乙"])
    vocabulary = read_vocabulary(folder, 2)
    assert vocabulary.tags_zh == ["甲", "乙"]
    np.testing.assert_allclose(vocabulary.thresholds, [0.25, 0.0008])


def test_unknown_names_go_through_the_text_encoder(make, model, golden, encoder):
    status, said, folder = make(["wombat", "tag 5", "quokka,短尾矮袋鼠,0.4"], text_encoder=encoder)
    assert (status, said) == (0, "")
    import noise_encoder

    labels = noise_encoder.embed(["wombat", "tag 5", "quokka"])
    labels[1] = model.label_embed[5].detach()
    with torch.inference_mode():
        expected = model.head(*map(torch.from_numpy, (golden["embeds"], labels)))
    logits = torch_tagger(load_model(folder / "ram.safetensors"))(golden["pixels"])
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    vocabulary = read_vocabulary(folder, 3)
    assert vocabulary.tags_zh == ["wombat", "标签5", "短尾矮袋鼠"]
    np.testing.assert_allclose(vocabulary.thresholds, [0.5, 0.0012, 0.4])


@pytest.mark.parametrize(
    "name",
    ["encoder", "labels", "evaluate", "demo", "preprocess", "experiments", "ram_triton", "ram_tag"],
)
def test_a_module_in_the_current_folder_is_not_shadowed_by_ours(make, tmp_path, monkeypatch, name):
    beside = f"beside_{name}"
    (tmp_path / f"{beside}.py").write_text("SEVEN = 7")
    (tmp_path / f"{name}.py").write_text(
        f"import numpy as np\ndef embed(names):\n    from {beside} import SEVEN\n"
        "    return np.full((len(names), 64), SEVEN)\n"
    )
    monkeypatch.chdir(tmp_path)
    path, ours = list(sys.path), sys.modules["ram_triton"]
    status, said, folder = make(["wombat"], text_encoder=f"{name}:embed")
    sys.modules.pop(beside)
    assert (status, said) == (0, "")
    assert (load_model(folder / "ram.safetensors").label_embed == 7).all()
    assert (sys.path, sys.modules["ram_triton"]) == (path, ours)


def test_a_package_in_the_current_folder_is_not_shadowed_by_ours(make, tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "__init__.py").write_text("")
    (tmp_path / "demo" / "encoder.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    assert make(["wombat"], text_encoder="demo.encoder:embed")[:2] == (0, "")


def test_a_package_that_is_missing_is_told_with_what_installs_it(make, tmp_path, monkeypatch):
    clip = save_for_transformers(tiny_clip(), tmp_path / "clip")
    for module in [name for name in sys.modules if name.startswith("ram_triton.text_encoder")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, said, _ = make(["wombat"], text_encoder=clip)
    assert (status, said.count("\n")) == (1, 1)
    assert "needs the package transformers: .venv/bin/pip install -e '.[train]'" in said


@pytest.mark.parametrize(
    ("given", "needed"), [([], "build"), (["TEXT_ENCODER=demo"], "build .venv/.installed-train")]
)
def test_a_text_encoder_brings_the_packages_that_it_needs(given, needed):
    required = ["NAMES=a", "OUTPUT=b", "CHECKPOINT=c", "VOCABULARY=d"]
    database = subprocess.run(
        ["make", "--dry-run", "--print-data-base", "vocabulary", *required, *given],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    assert f"\nvocabulary: .venv/.installed-{needed}\n" in database


def test_a_folder_that_holds_a_clip_is_a_text_encoder_too(make, tmp_path):
    clip = save_for_transformers(tiny_clip(), tmp_path / "clip")
    status, said, folder = make(["dragon", "tag 5"], text_encoder=clip)
    assert (status, said) == (0, "")
    label_embed = load_model(folder / "ram.safetensors").label_embed.detach().numpy()
    (expected,) = load_text_encoder(clip).embed(["Dragon"], ram_templates())
    np.testing.assert_allclose(label_embed[0], expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(label_embed[0]), 1, atol=1e-5)
    (clip / "vocab.json").unlink()
    status, said, _ = make(["dragon"], text_encoder=clip, output=tmp_path / "other")
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"ram-triton vocabulary: {clip}: ")


def test_of_ram_plus_plus_known_names_keep_all_their_descriptions(make, golden, encoder, tmp_path):
    torch.save({"model": plus_weights()}, tmp_path / "plus.pth")
    whole = torch_tagger(load_model(tmp_path / "plus.pth"))(golden["pixels"])
    status, said, folder = make(
        ["tag 17", "wombat", "tag 3"], checkpoint=tmp_path / "plus.pth", text_encoder=encoder
    )
    assert (status, said) == (0, "")
    made = load_model(folder / "ram.safetensors")
    assert (made.variant.architecture, made.variant.num_tags) == ("RAM++", 3)
    logits = torch_tagger(made)(golden["pixels"])
    np.testing.assert_allclose(logits[:, [0, 2]], whole[:, [17, 3]], atol=TOLERANCE)


def test_the_folder_becomes_a_repository_as_any_other(make, golden, repository, tmp_path):
    _, _, folder = make(["tag 8", "tag 2"])
    models = tmp_path / "models"
    with exports_of(repository, anew=HEADS):
        build(BuildRequest(folder / "ram.safetensors", folder, models, PICTURES, precision=NONE))
    tag = openvino_tagger(models / "ram_encoder/1/model.onnx", models / "ram_head/1/model.onnx")
    logits = tag(golden["pixels"])
    np.testing.assert_allclose(logits, golden["logits"][:, [8, 2]], atol=TOLERANCE)


def test_unknown_names_without_a_text_encoder_are_all_told_with_what_is_missing(make):
    status, said, folder = make(["wombat", "tag 1", "quokka"])
    names = folder.parents[1] / "names.txt"
    assert status == 1
    assert said.splitlines() == [
        f"ram-triton vocabulary: {names}, line 1: the checkpoint does not know 'wombat'",
        f"ram-triton vocabulary: {names}, line 3: the checkpoint does not know 'quokka'",
        "ram-triton vocabulary: other names need the text encoder of the checkpoint's labels: "
        "TEXT_ENCODER=DIR",
    ]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"text_encoder": "noise_encoder:embed_narrowly"},
            "embeddings have the shape (1, 63) for 1",
        ),
        ({"text_encoder": "noise_encoder:embed_nothing"}, "contain NaN or infinite values"),
        ({"text_encoder": "noise_encoder:no_function"}, "is not a function of its module"),
        ({"text_encoder": "noise_encoder"}, "is not a folder or MODULE:FUNCTION"),
        ({"text_encoder": "../clips/none"}, "'../clips/none' is not a folder or MODULE"),
        ({"text_encoder": "..none:embed"}, "cannot be imported (TypeError: "),
        ({"text_encoder": "none_such:embed"}, "cannot be imported (ModuleNotFoundError: "),
        ({"text_encoder": "wrong_encoder:embed"}, "cannot be imported (SyntaxError: "),
        ({"text_encoder": "noise_encoder:embed_not"}, "(RuntimeError: no memory at all)"),
        ({"text_encoder": "noise_encoder:embed_with_words"}, "did not return embeddings (Value"),
        ({"checkpoint": "none.pth"}, "none.pth: no such file"),
        ({"vocabulary": "none"}, "none: no such folder"),
        ({"names": "none.txt"}, "none.txt: No such file or directory"),
        ({"default_threshold": "2"}, "--default-threshold: '2' is not a threshold"),
        ({"output": PICTURES}, "exists already"),
        ({"output": "/proc/mine"}, "/proc/mine: cannot be written"),
    ],
)
@pytest.mark.usefixtures("encoder")
def test_what_cannot_be_used_is_one_line_and_writes_nothing(make, options, message):
    if "output" in options and options["output"] != PICTURES:
        options = options | {"text_encoder": "noise_encoder:embed"}
    before = sorted(PICTURES.iterdir())
    status, said, folder = make(["wombat"], **options)
    assert status == 1
    assert message in said and said.count("\n") == 1
    assert sorted(PICTURES.iterdir()) == before
    assert folder == PICTURES or not folder.exists()


def test_a_failed_write_leaves_nothing_behind(make, monkeypatch):
    def no_space(model, path):
        path.write_text("half a checkp")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ram_triton.vocabulary.choose.save_model", no_space)
    status, said, folder = make(["tag 1"])
    assert (status, "No space left on device" in said) == (1, True)
    assert list(folder.parent.iterdir()) == []


def test_the_make_target_names_the_options():
    dry_run = subprocess.run(
        [
            "make",
            "--dry-run",
            "vocabulary",
            "NAMES=my names.csv",
            "OUTPUT=runs/mine",
            "CHECKPOINT=ram.pth",
            "VOCABULARY=lists",
            "TEXT_ENCODER=mine:embed",
            "DEFAULT_THRESHOLD=0.5",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    for option in (
        "--names='my names.csv'",
        "--output='runs/mine'",
        "--checkpoint='ram.pth'",
        "--vocabulary='lists'",
        "--text-encoder='mine:embed'",
        "--default-threshold='0.5'",
    ):
        assert option in dry_run


def test_the_lists_are_those_that_ram_publishes(make):
    _, _, folder = make(["tag 1"])
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["ram.safetensors", ENGLISH, CHINESE, THRESHOLDS]
    )
