"""What the largest pictures take: a row per kind."""

import pytest
from experiments import image_limits
from ram_triton.cli import run_module


@pytest.mark.slow
def test_each_kind_of_large_picture_has_a_row(capsys):
    assert run_module("experiments.image_limits", image_limits, ["--megapixels", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert len(table) == len(image_limits.KINDS)
    for name, _, seconds, peak, *rest in table:
        assert seconds.endswith(" s") and peak.endswith(" MB") and not rest, name
