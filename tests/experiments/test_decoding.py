"""What decoding costs: one row per picture, size and way to decode it; what a resizer changes."""

from experiments import decoding
from PIL import Image
from ram_triton.cli import run_module


def test_each_picture_has_a_row_for_each_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoding, "SIZES", {"small": (900, 700)})
    monkeypatch.setattr(decoding, "RESIZED", {"JPEG": ((320, 240),)})
    monkeypatch.setattr(decoding, "IMAGE_SIZES", (96,))
    Image.new("RGB", (640, 480), "red").save(tmp_path / "own.jpg")
    arguments = [str(tmp_path), "--repeats", "1"]
    assert run_module("experiments.decoding", decoding, arguments) == 0
    assert decoding.resizing.RESIZER is not None
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    ways = ["JPEG, full size", "PNG", *(f"JPEG, margin {each}" for each in decoding.MARGINS)]
    pictures = ["small"] * 6 + ["own.jpg"] * 6 + ["320 x 240 JPEG"] * 2
    assert [row[0] for row in rows] == pictures
    assert [row[3] for row in rows] == [*ways, *ways, "Pillow's resize", "served"]
    assert rows[0][4] == "1/1" and rows[2][4] == "1/4", "a quarter of 700 px is above 96"
    assert int(rows[-1][8]) <= 1


def test_what_the_resizer_changes_is_reported_of_scores_and_tags(repository, picture_files, capsys):
    options = ["--tags", str(repository), str(picture_files[0].parent)]
    assert run_module("experiments.decoding", decoding, options) == 0
    assert f"{len(picture_files)} pictures" in capsys.readouterr().out
    assert decoding.resizing.RESIZER is not None
