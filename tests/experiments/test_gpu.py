"""The figures of engines beside PyTorch's, tried on the processor.

What needs a GPU is tested in tests/gpu, if there is one.
"""

import json
import re
from dataclasses import replace

import pytest
import torch
from experiments import gpu
from experiments.gpu import make_pytorch
from ram_triton.cli import run_module

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ["--batches", "1", "3", "--repeats", "2", "--seconds", "0.001", "--warm-up", "0", "--eager"]


@pytest.fixture
def figures(checkpoint, capsys):
    """Measure the tiny RAM with OpenVINO; returns the exit status, stdout and stderr."""

    def run(*arguments):
        command = ["--engine", "openvino", "--checkpoint", str(checkpoint), *QUICK]
        status = run_module("experiments.gpu", gpu, [*command, *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_the_table_has_encoder_head_and_both_at_each_batch_size(figures, tmp_path):
    status, table, errors = figures("--json", tmp_path / "new" / "figures.json")
    assert (status, errors) == (0, "")
    assert "swin(24 wide" in table and "not compiled" in table and "OpenVINO" in table
    rows = [line.split(" | ") for line in table.splitlines() if re.match(r"\| [a-z]+ \| \d", line)]
    parts = [(row[0].removeprefix("| "), int(row[1])) for row in rows]
    assert parts == [(part, batch) for batch in (1, 3) for part in ("encoder", "head", "both")]
    written = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert [(row["part"], row["batch"]) for row in written["rows"]] == parts
    for row in written["rows"]:
        for figure in row["milliseconds"].values():
            assert 0 < figure["low"] <= figure["median"] <= figure["high"]
            assert len(figure["values"]) == 2
    assert max(written["largest_logit_difference"].values()) < 1e-3


@pytest.mark.parametrize("option", ["--repeats", "--batches"])
def test_no_turns_and_empty_batches_are_refused_in_a_line(figures, capsys, option):
    with pytest.raises(SystemExit) as left:
        figures(option, "0")
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"argument {option}: '0' is not a whole number of at least 1\n"
    )


def test_figures_that_cannot_be_written_are_reported_before_anything_is_measured(figures, tmp_path):
    (tmp_path / "file").write_text("")
    status, out, error = figures("--json", tmp_path / "file" / "figures.json")
    assert (status, out, error.count("\n")) == (1, "", 1)
    assert error.startswith(f"experiments.gpu: {tmp_path}/file/figures.json: cannot be written (")
    status, out, error = figures("--json", tmp_path)
    assert (status, out, error) == (
        1,
        "",
        f"experiments.gpu: {tmp_path}: cannot be written (Is a directory)\n",
    )


def test_an_engine_whose_answers_are_wrong_gets_no_figures(figures, monkeypatch):
    def make_wrong(engine, model, *_):
        right = make_pytorch(model, torch.float32, "cpu", compiled=False)
        return replace(right, recognise=lambda embeds: right.recognise(embeds) + 0.5)

    monkeypatch.setattr(gpu, "make_engine", make_wrong)
    status, table, error = figures()
    assert status == 1 and "| encoder | 1" not in table
    assert "in a batch of 1 a logit is off by 0.5, the limit is 0.001" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_so(checkpoint, capsys):
    assert run_module("experiments.gpu", gpu, ["--checkpoint", str(checkpoint), *QUICK]) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert re.search("no NVIDIA driver|finds no GPU", error)
