"""`make model`: what it writes, what it refuses, and that refusing changes nothing."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ram_triton.build
import torch
from ram_triton.build import BuildRequest, build
from ram_triton.errors import ParityError, RepositoryError
from ram_triton.files import sha256
from ram_triton.repository.layout import DEFAULT_REPOSITORY
from ram_triton.repository.repository import Repository
from support.golden_checkpoint import golden_weights
from support.pipeline import PICTURES, run_command

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "conftest.py"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def arguments(checkpoint, vocabulary_folder, copied):
    return {
        "--checkpoint": checkpoint,
        "--vocabulary": vocabulary_folder,
        "--repository": copied,
    }


@pytest.fixture
def refusal(copied, arguments, capsys):
    """Run it on a repository that holds a model; returns the one line that it says."""

    def refuse(**changed):
        before = contents(copied)
        options = arguments | {f"--{name.replace('_', '-')}": v for name, v in changed.items()}
        status = run_command("model", [str(part) for pair in options.items() for part in pair])
        stderr = capsys.readouterr().err
        assert status == 1
        assert contents(copied) == before
        assert stderr.startswith("ram-triton model: ") and stderr.count("\n") == 1, stderr
        return stderr

    return refuse


def test_the_manifest_names_checkpoint_variant_tools_and_every_artefact(repository, checkpoint):
    manifest = Repository(repository).manifest()
    assert manifest["checkpoint"] == {"name": "tiny.pth", "sha256": sha256(checkpoint)}
    assert manifest["variant"]["num_tags"] == 40
    assert manifest["variant"]["image_size"] == 96
    assert {"torch", "timm", "onnx", "openvino"} <= manifest["tools"].keys()
    assert manifest["parity"]["largest_logit_difference"] < 1e-3
    assert manifest["artefacts"] == {
        name: sha256(repository / name) for name in manifest["artefacts"]
    }
    assert {
        "ram_encoder/1/model.onnx",
        "ram_encoder/1/model.onnx.data",
        "ram_head/1/model.onnx",
        "ram_postprocess/1/vocabulary.json",
        "ram_preprocess/1/variant.json",
    } <= manifest["artefacts"].keys()


def test_a_new_repository_is_complete_and_holds_nothing_but_models(repository):
    models = [
        "ram",
        "ram_encoder",
        "ram_head",
        "ram_maps",
        "ram_open",
        "ram_open_head",
        "ram_open_labels",
        "ram_open_maps",
        "ram_open_postprocess",
        "ram_pixels",
        "ram_pixels_check",
        "ram_postprocess",
        "ram_preprocess",
    ]
    assert sorted(path.name for path in repository.iterdir()) == models
    assert all((repository / model / "config.pbtxt").is_file() for model in models)
    assert not list(repository.glob("*/.staging*"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("checkpoint", "none.pth", "no such file"),
        ("checkpoint", SCRIPT, "is not a checkpoint"),
        ("vocabulary", "none", "no such folder"),
        ("images", "none", "none: contains no images (.avif, .bmp, "),
        ("image_size", "384", "look like swin(24 wide, depths 2/2/2/2) at 96 px"),
        ("backbone", "swin_b", "not like swin_b at 96 px"),
        ("default_threshold", "2", "--default-threshold: '2' is not a threshold"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(refusal, option, value, message):
    assert message in refusal(**{option: value})


def test_a_repository_that_cannot_be_written_is_one_line(refusal):
    assert "/proc/models: cannot be written" in refusal(repository="/proc/models")


def test_graphs_that_differ_too_much_fail_and_leave_the_repository_as_it_was(
    vocabulary_folder, copied, tmp_path, monkeypatch
):
    def export_of_other_weights(model, path):
        shutil.copytree(copied / path.parts[-3] / "1", path.parent)

    graphs = dict.fromkeys(ram_triton.build.GRAPHS, export_of_other_weights)
    monkeypatch.setattr(ram_triton.build, "GRAPHS", graphs)
    weights = golden_weights()
    weights["fc.bias"] += 0.01
    torch.save({"model": weights}, tmp_path / "disturbed.pth")
    before = contents(copied)
    for root in (copied, tmp_path / "new"):
        request = BuildRequest(tmp_path / "disturbed.pth", vocabulary_folder, root, PICTURES)
        with pytest.raises(ParityError, match=r"logit difference 0\.01, the limit is 0\.001"):
            build(request)
    assert contents(copied) == before
    assert not (tmp_path / "new").exists()


def require_refused(repository):
    refused = pytest.raises(RepositoryError, match="another build is writing to it")
    with refused, repository.staging():
        pass


def test_a_second_build_of_the_same_repository_is_refused_meanwhile(tmp_path):
    repository = Repository(tmp_path / "models")
    with repository.staging():
        require_refused(repository)


def test_a_lock_of_a_folder_that_was_removed_meanwhile_does_not_count(tmp_path, monkeypatch):
    repository = Repository(tmp_path / "models")
    lock = fcntl.flock

    def lock_what_another_build_removes(descriptor, operation):
        monkeypatch.undo()
        (repository.root / "ram").rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_what_another_build_removes)
    with repository.staging():
        require_refused(repository)


def test_no_other_build_begins_in_a_folder_that_is_being_removed(tmp_path, monkeypatch):
    repository = Repository(tmp_path / "models")
    remove, removed = Path.rmdir, []

    def try_to_build_before(folder):
        if folder.name == "ram":
            require_refused(repository)
        remove(folder)
        removed.append(folder)

    monkeypatch.setattr(Path, "rmdir", try_to_build_before)
    with repository.staging():
        pass
    assert removed == [repository.root / "ram", repository.root]


def test_an_interruption_leaves_no_half_of_a_config(tmp_path, monkeypatch):
    repository = Repository(tmp_path / "models")

    def install():
        with repository.staging() as staging:
            (staging / "ram" / "1").mkdir(parents=True)
            repository.install(staging, {})

    def copy_half(source, target):
        Path(target).write_bytes(source.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(shutil, "copyfile", copy_half)
        install()
    install()
    for config in repository.root.glob("*/config.pbtxt"):
        original = DEFAULT_REPOSITORY / config.relative_to(repository.root)
        assert config.read_bytes() == original.read_bytes()
    assert not list(repository.root.glob("*/.*"))


def test_installing_replaces_the_former_model_with_its_plans_but_not_an_edited_config(tmp_path):
    repository = Repository(tmp_path / "models")
    for generation in ("first", "second"):
        with repository.staging() as staging:
            (staging / "ram_head" / "1").mkdir(parents=True)
            (staging / "ram_head" / "1" / "model.onnx").write_text(generation)
            repository.install(staging, {"variant": generation})
        head = repository.root / "ram_head"
        assert (head / "1" / "model.onnx").read_text() == generation
        assert repository.manifest()["variant"] == generation
        assert not (head / "1" / "model.plan").exists()
        (head / "1" / "model.plan").write_text("built of the first generation's graphs")
        (head / "config.pbtxt").write_text("edited")
    assert (head / "config.pbtxt").read_text() == "edited"


def test_what_an_interrupted_build_left_is_removed_by_the_next(tmp_path):
    left_over = tmp_path / "models" / "ram" / ".staging-killed"
    left_over.mkdir(parents=True)
    (left_over / "model.onnx").touch()
    with Repository(tmp_path / "models").staging():
        assert not left_over.exists()


def test_help_and_the_make_target_name_the_same_options(tmp_path):
    command = [sys.executable, "-m", "ram_triton", "model", "--help"]
    stdout = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout
    for option in ("--checkpoint", "--vocabulary", "--repository", "--backbone", "--image-size"):
        assert option in stdout
    dry_run = subprocess.run(
        [
            "make",
            "--dry-run",
            "model",
            "CHECKPOINT=a b.pth",
            "BACKBONE=swin_l",
            "IMAGE_SIZE=384",
            "VOCABULARY=lists",
            "REPOSITORY=models",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    for option in (
        "--checkpoint='a b.pth'",
        "--backbone='swin_l'",
        "--image-size='384'",
        "--vocabulary='lists'",
        "--repository='models'",
    ):
        assert option in dry_run


def test_the_vocabulary_of_a_built_repository_is_readable_json(repository):
    entries = json.loads((repository / "ram_postprocess/1/vocabulary.json").read_text())
    assert entries[3] == {"tag": "tag 3", "tag_zh": "标签3", "threshold": 0.0008}
