"""The examples of docs/bulk.md run on what `ram-bulk` wrote."""

import os
import re
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from support.bulk_runs import rows, run_here

PAGE = Path(__file__).parents[3] / "docs" / "bulk.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture(scope="module")
def tagged(server, tmp_path_factory, picture_files):
    """The project's pictures, one of them three times, one broken, tagged into `tags`."""
    root = tmp_path_factory.mktemp("examples")
    album = root / "album"
    album.mkdir()
    for file in picture_files[:8]:
        (album / file.name).write_bytes(file.read_bytes())
    (album / "again.png").write_bytes(picture_files[0].read_bytes())
    with PIL.Image.open(picture_files[0]) as picture:
        smaller = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
        smaller.save(album / "smaller.jpg", quality=80)
    (album / "broken.jpg").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        done = run_here("album", "-o", "tags", "--server", server.grpc, "--embedding")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def ask(tagged):
    """Run an example, with a tag that the tiny model finds, and return what it prints."""

    def run_it(example):
        found = next(row["tags"][0] for row in rows(tagged / "tags") if row["tags"])
        done = subprocess.run(
            [sys.executable, "-c", example.replace("fruit", found)],
            capture_output=True,
            text=True,
            cwd=tagged,
            env=os.environ | {"PYTHONUTF8": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_it


def test_questions_to_duckdb(ask, picture_files):
    pytest.importorskip("duckdb")
    printed = ask(EXAMPLES[0])
    with_a_tag, rest = printed.split("tags per folder")
    assert "album" in with_a_tag
    failures, same = rest.split("the same to the model")
    assert "image" in failures.split("failures")[1]
    assert "again.png" in same
    assert picture_files[0].name in same


def test_neighbours_and_near_duplicates(ask, tagged, picture_files):
    pytest.importorskip("usearch")
    pytest.importorskip("duckdb")
    printed = ask(EXAMPLES[1])
    first, pairs = printed.split("near duplicates\n")
    assert "again.png" in first
    copies = {"again.png", "smaller.jpg", picture_files[0].name}
    found = [line.split() for line in pairs.splitlines()]
    among_copies = [pair for _, *pair in found if {*pair} <= copies]
    assert len(among_copies) == 3, "each of three copies with each other"
    distances = [float(distance) for distance, *_ in found]
    assert distances == sorted(distances)
    assert all(distance < 0.01 for distance in distances)
    assert len({key for _, *pair in found for key in pair}) < len(rows(tagged / "tags")) - 1
    assert (tagged / "tags.usearch").stat().st_size > 0
