"""What decoding costs: one row per picture, size and way to decode it."""

from experiments import decoding
from PIL import Image
from ram_triton.cli import run_module


def test_pictures_made_here_and_ones_own_have_a_row_for_each_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoding, "SIZES", {"small": (900, 700)})
    monkeypatch.setattr(decoding, "IMAGE_SIZES", (96,))
    Image.new("RGB", (640, 480), "red").save(tmp_path / "own.jpg")
    arguments = [str(tmp_path), "--repeats", "1"]
    assert run_module("experiments.decoding", decoding, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| small", "| own.jpg"))]
    ways = ["JPEG, full size", "PNG", *(f"JPEG, margin {each}" for each in decoding.MARGINS)]
    assert [row[3] for row in rows] == ways * 2
    assert rows[0][4] == "1/1" and rows[2][4] == "1/4", "a quarter of 700 px is above 96"
