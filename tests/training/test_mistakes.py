"""What training and evaluation say of wrong settings, data and places: a line, before the work."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from demo import prepare, ready_graphs
from ram_triton.cli import main, run_module
from ram_triton.commands import evaluate, train
from ram_triton.errors import ConfigError
from ram_triton.training.config import Config, Section, read_config
from ram_triton.training.optimise import choose_device
from support import PATIENCE
from support.training_run import write_lines


def test_all_mistakes_in_the_data_are_told_before_training_begins(run_folder, run):
    write_lines(
        run_folder,
        [
            {"image": "0.png", "tags": ["violet"]},
            {"image": "none.png", "tags": ["red"]},
        ],
    )
    told = run(train, run_folder, expect=1)
    first, second = told.splitlines()
    assert "line 1: the tag 'violet'" in first and "line 2: the image" in second
    assert not (run_folder / "out").exists()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("epochs =", "epoch =", r"optimisation.epoch: unknown setting \(known: epochs, "),
        ("epochs = 3", 'epochs = "3"', "optimisation.epochs: must be a whole number, not '3'"),
        ('device = "cpu"', 'device = "tpu"', "device: must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
        ('output = "out"', "", "output: the setting is missing"),
        ("threads = 1", "threads =", "is not valid TOML"),
        ('manifest = "data.jsonl"', "", "data: must have a manifest or a folder"),
        ("tagging = 1.0", "tagging = 0.0", "losses: must have tagging or classification"),
        ("tagging = 1.0", "tagging = nan", "losses.tagging: must be a finite number, not nan"),
        (
            "learning_rate = 1e-3",
            "learning_rate = -1",
            "learning_rate: must be more than 0, not -1",
        ),
        (
            "learning_rate = 1e-3",
            "learning_rate = nan",
            "learning_rate: must be a finite number",
        ),
        (
            "learning_rate = 1e-3",
            "weight_decay = -1",
            "weight_decay: must be at least 0",
        ),
        (
            "learning_rate = 1e-3",
            "gradient_norm = 0",
            "gradient_norm: must be more than 0",
        ),
        ("threads = 1", "threads = -1", "threads: must be at least 0"),
        ("threads = 1", "seed = -1", "seed: must be at least 0"),
        ("workers = 0", "workers = -1", "data.workers: must be at least 0"),
        ("log_steps = 2", "log_steps = 0", "reports.log_steps: must be at least 1"),
        (
            "num_heads = [1, 1, 2, 2]",
            "num_heads = [1]",
            "must have at least 4 numbers, not 1",
        ),
        (
            "depths = [1, 1, 1, 1]",
            "depths = [0, 1, 1, 1]",
            r"depths\[0\]: must be at least 1",
        ),
        ("num_layers = 2", "num_layers = 0", "model.num_layers: must be at least 1"),
        ("[model]", '[model]\nstart = "a.pth"\nswin = "b.pth"', "leave swin out"),
        ("[0.5, 0.5]", "[]", "objects must have a number above 0"),
        ("[0.5, 0.5]", "[0.0]", "objects must have a number above 0"),
        ("[0.5, 0.5]", "[1, -1]", r"augmentation.objects\[1\]: must be at least 0"),
        ("[0.5, 0.5]", "[1]\nscale = [0, 1]", r"augmentation.scale\[0\]: must be more than 0"),
        ("[0.5, 0.5]", "[1]\nscale = [2, 1]", "the smaller first"),
        (
            "[augmentation]",
            "[asymmetry]\nclip = 2\n[augmentation]",
            "clip: must be less than 1, not 2",
        ),
        (
            "[augmentation]",
            "[asymmetry]\ngamma_negative = -1\n[augmentation]",
            "gamma_negative",
        ),
    ],
)
def test_a_wrong_setting_is_told_by_name(run_folder, before, after, told):
    path = run_folder / "train.toml"
    path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")
    with pytest.raises(ConfigError, match=told):
        read_config(path)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("image_size = 32", "image_size = 33", "image_size 33 would be read as one with 32"),
        ("image_size = 32", "image_size = 48", "model.image_size: "),
        (
            "embed_dim = 8",
            "embed_dim = 128",
            r"depths .* would be read as one with \(2, 2, 18, 2\)",
        ),
        ("hidden_size = 16", "hidden_size = 18", "hidden_size: must be a multiple of 4"),
        (
            'output = "out"',
            'output = "labels.npy/out"',
            "labels.npy/out: .*Not a directory",
        ),
    ],
)
def test_what_could_not_be_served_or_written_ends_in_a_line_before_training(
    run_folder, run, before, after, told
):
    path = run_folder / "train.toml"
    path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")
    (line,) = [
        line
        for line in run(train, run_folder, expect=1).splitlines()
        if "ram-triton train: " in line
    ]
    assert re.search(told, line)
    assert not (run_folder / "out").exists()


def test_label_embeddings_of_nan_are_told(run_folder, run):
    np.save(run_folder / "labels.npy", np.full((3, 20), np.nan, np.float32))
    assert "labels.npy: contains NaN" in run(train, run_folder, expect=1)


def test_a_device_that_is_not_there_is_told():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="PyTorch finds no GPU"):
        choose_device("cuda")


def test_a_folder_in_place_of_a_configuration_is_named(tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"ram-triton train: {tmp_path}: Is a directory\n"


def test_all_wrong_settings_are_reported_at_once(run_folder):
    path = run_folder / "train.toml"
    text = path.read_text("utf-8")
    for before, after in (
        ("workers = 0", "workers = true"),
        ("epochs = 3", "epochs = 2.5"),
        ('output = "out"', "output = 3"),
        ("[model]", "[models]\n[text]\nlayers = []\n[model]\nstart = [1]"),
        ("objects = [0.5, 0.5]", 'objects = "many"'),
        ('device = "cpu"', "seed = 4294967296"),
    ):
        text = text.replace(before, after)
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    faults = {line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()}
    assert {fault for fault in faults if not fault.startswith("models: ")} == {
        "output: must be text, not 3",
        "data.workers: must be a whole number, not True",
        "model.start: must be text, not [1]",
        "text.layers: must be a whole number, not []",
        "augmentation.objects: must be a list, not 'many'",
        "optimisation.epochs: must be a whole number, not 2.5",
        "seed: must be at most 4294967295, not 4294967296",
    }
    assert "models: unknown setting (known: output, data, model, text, " in str(caught.value)


def test_every_setting_has_its_documentation_and_files_lie_beside_the_configuration(run_folder):
    config = read_config(run_folder / "train.toml")
    assert config.data.manifest == run_folder / "data.jsonl"
    for section in (Config, *(type(value) for _, value in config if isinstance(value, Section))):
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description or issubclass(field.annotation, Section), name


def test_evaluation_finds_before_its_work_what_it_cannot_write(run_folder, run, capsys):
    run(train, run_folder)
    place = str(run_folder / "labels.npy" / "none")
    with pytest.raises(SystemExit):
        run(evaluate, run_folder, "--threads=-3")
    assert "'-3' is not a whole number of at least 0" in capsys.readouterr().err
    for wrong in (
        [f"--json={place}/figures.json"],
        [f"--thresholds={place}"],
        [f"--json={run_folder}"],
    ):
        (line,) = run(evaluate, run_folder, *wrong, expect=1).splitlines()
        assert line.startswith("ram-triton evaluate: ")
    assert not (run_folder / "out" / "ram_tag_list_threshold.txt").exists()
    run(evaluate, run_folder, f"--json={run_folder}/new/figures.json")
    assert (run_folder / "new" / "figures.json").is_file()


@pytest.mark.parametrize("output", ["file/half.safetensors", "folder"])
def test_half_a_checkpoint_that_cannot_be_written_is_a_line(checkpoint, tmp_path, capsys, output):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    arguments = ["--halve", str(checkpoint), str(tmp_path / output)]
    assert run_module("demo.ready_graphs", ready_graphs, arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line


def test_the_demos_data_without_npm_is_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_module("demo.prepare", prepare, ["--output", str(tmp_path / "demo")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo.prepare: npm is missing")


def test_the_demos_data_that_is_interrupted_is_a_line(tmp_path):
    (tmp_path / "npm").write_text("#!/bin/sh\nkill -INT $PPID\nexec sleep 60\n")
    (tmp_path / "npm").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = [sys.executable, "-m", "demo.prepare", "--output", str(tmp_path / "demo")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["demo.prepare: interrupted, run it again"]
