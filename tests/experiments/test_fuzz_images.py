"""Damaged files are pixels or a refusal, and no finding; the corpus holds what once went wrong."""

import random

from experiments import fuzz_images
from experiments.image_files import corpus
from ram_triton.cli import run_module
from ram_triton.server_code import ImageError, preprocess


def test_every_file_of_the_corpus_is_pixels_or_a_clear_refusal():
    refused = []
    for name, data in corpus().items():
        try:
            assert preprocess(data, 32).shape == (32, 32, 3), name
        except ImageError as error:
            assert fuzz_images.judge(str(error)) is None
            refused.append(name)
    assert refused == ["GIF of an enormous frame", "TIFF whose directory lies beyond"]


def test_mutated_files_are_no_findings():
    outcome = fuzz_images.fuzz(corpus(), 1, 15, most=3000)
    assert [(name, what) for name, what, _ in outcome.findings] == []
    assert outcome.accepted.total() and outcome.refused.total()


def test_a_seed_gives_the_same_files():
    data = corpus()["PNG"]
    once, again = (
        [fuzz_images.mutate(data, data, generator) for _ in range(50)]
        for generator in (random.Random(5), random.Random(5))
    )
    assert once == again and len(set(once)) > 40


def test_what_is_found_is_printed_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz_images, "FAULTS", ("known format",))
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.bin").write_bytes(bytes(20))
    monkeypatch.setattr(fuzz_images, "corpus", dict)
    arguments = [str(own), "--seconds", "1", "--keep", str(tmp_path / "kept")]
    assert run_module("experiments.fuzz_images", fuzz_images, arguments) == 0
    assert "not an image of a known format" in capsys.readouterr().out
    assert list((tmp_path / "kept").iterdir())
