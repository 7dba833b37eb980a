"""The tables of docs/images.md that are not of `experiments.decoding`."""

import pytest
from experiments import image_limits, resizing
from ram_triton.cli import run_module


def rows(capsys) -> list[list[str]]:
    lines = capsys.readouterr().out.splitlines()
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@pytest.mark.slow
def test_each_kind_of_large_picture_has_a_row(capsys):
    assert run_module("experiments.image_limits", image_limits, ["--megapixels", "1"]) == 0
    table = rows(capsys)
    assert len(table) == len(image_limits.KINDS)
    for name, _, seconds, peak, *rest in table:
        assert seconds.endswith(" s") and peak.endswith(" MB") and not rest, name


def test_resizing_is_measured_with_and_without_the_resizer(capsys, monkeypatch):
    monkeypatch.setattr(resizing, "PICTURES", {"JPEG": ((320, 240),)})
    assert run_module("experiments.resizing", resizing, ["--repeats", "1"]) == 0
    assert resizing.resizing.RESIZER is not None
    for *_, largest in rows(capsys):
        assert int(largest.rstrip(" |")) <= 1


def test_what_the_resizer_changes_is_reported_of_scores_and_tags(repository, picture_files, capsys):
    options = ["--tags", str(repository), str(picture_files[0].parent)]
    assert run_module("experiments.resizing", resizing, options) == 0
    assert f"{len(picture_files)} pictures" in capsys.readouterr().out
    assert resizing.resizing.RESIZER is not None
