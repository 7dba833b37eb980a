"""Fixtures: a tiny training set with its settings, and the training commands run on it."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from ram_triton.cli import main

TAGS = ["red", "green", "blue"]
EPOCHS, IMAGES, BATCH = 3, 24, 4

CONFIG = """
output = "out"
device = "cpu"
threads = 1
losses = {losses}

[data]
vocabulary = "."
label_embeddings = "labels.npy"
manifest = "data.jsonl"
workers = {workers}
{data}

[model]
image_size = 32
embed_dim = 8
depths = [1, 1, 1, 1]
num_heads = [1, 1, 2, 2]
image_width = 12
hidden_size = 16
num_layers = 2
intermediate_size = 24

[augmentation]
objects = [0.5, 0.5]

[optimisation]
epochs = {epochs}
batch_size = 4
learning_rate = 1e-3
warmup_steps = 4
precision = "float32"

[reports]
log_steps = 2
checkpoint_seconds = 0
"""
ALL = "{ tagging = 1.0, distillation = 1.0, generation = 1.0 }"


@pytest.fixture
def run_folder(tmp_path):
    """A training set of coloured squares, with a file of everything that a run needs."""
    chance = np.random.default_rng(0)
    lines = []
    for number in range(IMAGES):
        colour = number % 3
        pixels = chance.integers(0, 60, (32, 32, 3), np.uint8)
        pixels[..., colour] += 150
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "validation" if number >= IMAGES - 4 else "train"
        lines.append({"image": f"{number}.png", "tags": [TAGS[colour]], "split": split})
    write_lines(tmp_path, lines)
    (tmp_path / "ram_tag_list.txt").write_text("\n".join(TAGS) + "\n", "utf-8")
    (tmp_path / "ram_tag_list_chinese.txt").write_text("红\n绿\n蓝\n", "utf-8")
    np.save(tmp_path / "labels.npy", chance.standard_normal((3, 20), np.float32))
    np.save(tmp_path / "features.npy", chance.standard_normal((IMAGES, 12), np.float32))
    write_config(tmp_path)
    return tmp_path


def write_lines(folder, lines):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")


def write_config(folder, data="", losses=ALL, workers=0, epochs=EPOCHS):
    settings = {"data": data, "losses": losses, "workers": workers, "epochs": epochs}
    (folder / "train.toml").write_text(CONFIG.format(**settings), "utf-8")


def name_of(module):
    """Name a command's module as the command line does."""
    return module.__name__.rpartition(".")[2]


def command(module, folder, *arguments):
    name, config = name_of(module), str(folder / "train.toml")
    return [sys.executable, "-m", "ram_triton", name, config, *arguments]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command's `main` here, as often as wished: its imports take longer than its work."""
    threads = torch.get_num_threads()

    def run(module, folder, *arguments, expect=0):
        monkeypatch.chdir("/")
        status = main([name_of(module), str(folder / "train.toml"), *arguments])
        told = capsys.readouterr()
        assert status == expect, told
        return told.out + told.err

    yield run
    torch.set_num_threads(threads)
