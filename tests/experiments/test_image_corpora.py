"""A folder of pictures is compared with other decoders, if they are installed."""

import pytest
from experiments import image_corpora
from PIL import Image
from ram_triton.cli import run_module


def test_a_folder_without_files_is_told(tmp_path, capsys):
    assert run_module("experiments.image_corpora", image_corpora, [str(tmp_path)]) == 1
    assert "no files" in capsys.readouterr().err


def test_each_format_has_a_row_and_what_differs_a_line(tmp_path, capsys):
    pytest.importorskip("pyvips", reason="pip install pyvips[binary]")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    assert run_module("experiments.image_corpora", image_corpora, [str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| PNG | 1 | 1 | 0 | 1 | 0 | 0 |" in printed
    assert "| JPEG | 1 | 0 | 1 | 0 | 0 | 0 |" in printed
