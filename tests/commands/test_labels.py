"""`make labels`: a list of names becomes the label embeddings of a training."""

import subprocess
import sys

import numpy as np
import pytest
from ram_triton.text_encoder.checkpoint import load_text_encoder
from ram_triton.text_encoder.templates import ram_templates
from support import PATIENCE
from support.pipeline import run_command
from support.tiny_clip import save_for_transformers, tiny_clip

ENCODER = """
import numpy as np

def embed(names):
    return np.array([[len(name), *name.encode()[:2]] for name in names], np.float32)

def embed_flat(names):
    return np.zeros(len(names))

def embed_nothing(names):
    return np.full((len(names), 3), np.nan)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a list of names and a module that embeds them."""
    (tmp_path / "my_encoder.py").write_text(ENCODER)
    (tmp_path / "names.txt").write_text("cat,猫\nhot dog\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(names="names.txt", function="embed", output="new/labels.npy"):
    arguments = ["--names", names, "--text-encoder", f"my_encoder:{function}", "--output", output]
    return run_command("labels", list(map(str, arguments)))


def test_labels_are_embedded_in_the_lists_order(folder, capsys):
    assert make() == 0
    assert capsys.readouterr().out == "new/labels.npy: label embeddings of 2 tags, 3 wide\n"
    labels = np.load(folder / "new" / "labels.npy")
    assert labels.dtype == np.float32
    assert labels.tolist() == [[3, ord("c"), ord("a")], [7, ord("h"), ord("o")]]


def test_a_text_encoders_folder_embeds_them_in_a_process_of_its_own(folder):
    save_for_transformers(tiny_clip(), folder / "clip")
    arguments = ["--names", "names.txt", "--text-encoder", "clip", "--output", "labels.npy"]
    command = [sys.executable, "-m", "ram_triton", "labels", *arguments]
    subprocess.run(command, check=True, timeout=PATIENCE)
    expected = load_text_encoder(folder / "clip").embed(["cat", "hot dog"], ram_templates())
    np.testing.assert_allclose(np.load("labels.npy"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"names": "none.txt"}, "none.txt: No such file or directory"),
        ({"function": "embed_flat"}, "have the shape (2,) for 2 names, not (names, width)"),
        ({"function": "embed_nothing"}, "contain NaN or infinite values"),
        ({"output": "labels.txt"}, "labels.txt: must end in .npy"),
        ({"output": "names.txt/labels.npy"}, "names.txt/labels.npy: cannot be written"),
    ],
)
def test_what_is_wrong_is_reported_in_a_line_and_nothing_is_written(folder, capsys, options, fault):
    assert make(**options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ram-triton labels: ") and fault in line
    assert not list(folder.rglob("*.npy"))
