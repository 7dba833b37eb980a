"""`ram-bulk` on a real tritonserver: sources, formats, stopping at any moment and going on."""

import gzip
import io
import json
import random
import shutil
import signal
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from subprocess import TimeoutExpired

import PIL.Image
import pyarrow
import pytest
from pyarrow import parquet
from ram_client import RamClient
from support.bulk_runs import lines, rows, run, run_here, start

PICTURES = 60
SHARD_SIZE = 7
PARTS = -(-(PICTURES + 1) // SHARD_SIZE)
TAG_COLUMNS = ("tags", "tags_zh", "scores", "ids", "error")


def picture(number):
    """A small picture of its own for each number, as PNG."""
    gradient = PIL.Image.linear_gradient("L").resize((16, 16)).rotate(90 * (number % 4))
    bands = [gradient.point(lambda v, n=n: v ^ (number * n % 256)) for n in (37, 91, 53)]
    buffer = io.BytesIO()
    PIL.Image.merge("RGB", bands).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in two folders, one of them broken, and a text."""
    root = tmp_path_factory.mktemp("many")
    (root / "b").mkdir()
    for number in range(PICTURES):
        name = f"{number:03}.png" if number % 3 else f"b/{number:03}.png"
        (root / name).write_bytes(picture(number))
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def bulk(server, tmp_path):
    """Run the command, with parts in the folder `out`."""

    def run_it(*arguments, runner=run_here):
        own = ["--server", server.grpc, "--shard-size", SHARD_SIZE, "-o", tmp_path / "out"]
        return runner(*own, *arguments)

    return run_it


@pytest.fixture(scope="module")
def expected(server, folder):
    """The rows of an uninterrupted run."""
    output = folder.parent / "uninterrupted"
    own = ["--server", server.grpc, "--shard-size", SHARD_SIZE, "-o", output]
    done = run(folder, *own, "--embedding")
    assert (done.returncode, done.stderr) == (0, "")
    first, reason = lines(done.stdout)
    assert first.startswith(f"{PICTURES + 1} images in {PARTS} parts: ")
    assert " 1 failed; " in first
    assert reason.split()[0] == "1"
    assert "image" in reason
    return rows(output)


@pytest.fixture(scope="module")
def by_key(expected):
    return {row["key"]: {name: row[name] for name in TAG_COLUMNS} for row in expected}


def same(found, by_key):
    """Whether rows have the tags of the uninterrupted run; scores vary with the batch."""
    for row in found:
        wanted = by_key[row["key"]]
        assert row["ids"] == wanted["ids"], row["key"]
        assert row["scores"] == (wanted["scores"] and pytest.approx(wanted["scores"], abs=1e-4))
        assert (row["error"] is None) == (wanted["error"] is None)
    assert sorted(row["key"] for row in found) == sorted(by_key)


def test_rows_are_what_the_client_finds(expected, folder, server):
    keys = [row["key"] for row in expected]
    assert keys == sorted(keys, key=lambda key: ("/" in key, key))
    assert len(set(keys)) == len(keys) == PICTURES + 1
    good = [row for row in expected if row["key"] != "broken.jpg"]
    with RamClient(server.grpc) as client:
        for row in good[::9]:
            tags = client.tag(folder / row["key"])
            assert row["tags"] == [tag.name for tag in tags]
            assert row["tags_zh"] == [tag.name_zh for tag in tags]
            assert row["ids"] == [tag.id for tag in tags]
            assert row["scores"] == pytest.approx([tag.score for tag in tags], abs=1e-4)
            embedding = client.embed(folder / row["key"]).tolist()
            assert row["embedding"] == pytest.approx(embedding, abs=1e-3)
    assert all(row["error"] is None for row in good)
    assert any(row["tags"] for row in good)
    (broken,) = (row for row in expected if row["key"] == "broken.jpg")
    assert broken["tags"] is None
    assert broken["error"].startswith("image")
    assert {row["source"] for row in expected} == {str(folder)}


def test_a_part_has_a_schema_and_how_it_was_made(expected, folder):
    part = parquet.read_schema(folder.parent / "uninterrupted" / "part-00000-000000.parquet")
    assert part.names == [
        *("key", "source", "tags", "tags_zh", "scores", "ids", "error", "embedding")
    ]
    assert part.field("scores").type == pyarrow.list_(pyarrow.float32())
    assert part.field("ids").type == pyarrow.list_(pyarrow.int32())
    size = len(expected[0]["embedding"])
    assert part.field("embedding").type == pyarrow.list_(pyarrow.float32(), size)
    assert part.metadata[b"ram_model"] == b'"ram"'
    assert b"ram_threshold" in part.metadata


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_json_lines(bulk, folder, by_key, tmp_path, kind):
    done = bulk(folder, "--format", kind)
    assert (done.returncode, done.stderr) == (0, "")
    parts = sorted((tmp_path / "out").glob(f"*.{kind}"))
    assert len(parts) == PARTS
    opened = gzip.open if kind == "jsonl.gz" else open
    found = []
    for part in parts:
        with opened(part, "rt", encoding="utf-8") as text:
            found += [json.loads(line) for line in text]
    same(found, by_key)


def samples(path):
    """A shard's samples: the files of each key by suffix."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, {})[suffix] = archive.extractfile(member).read()
    return found


def shard(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory, folder):
    """Two shards: samples with a picture and what belongs to it, one without, one key twice."""
    root = tmp_path_factory.mktemp("shards")
    files = {}
    for number in range(20):
        files[f"{number:03}.png"] = picture(number)
        files[f"{number:03}.json"] = json.dumps({"caption": f"no {number}"}).encode()
    files["x/text.txt"] = b"no picture"
    shard(root / "0.tar", files)
    shard(root / "1.tar", {f"{number:03}.PNG": picture(number) for number in range(20, 27)})
    return root


def test_webdataset_in_and_out(bulk, shards, by_key, tmp_path):
    done = bulk(shards / "0.tar", shards / "1.tar", "--format", "webdataset")
    assert (done.returncode, done.stderr) == (0, "")
    found = {}
    for part in sorted((tmp_path / "out").glob("*.tar")):
        found |= samples(part)
    assert list(found) == [f"{number:03}" for number in range(20)] + ["x/text"] + [
        f"{number:03}" for number in range(20, 27)
    ]
    for number in range(27):
        sample = found[f"{number:03}"]
        assert sample["png"] == picture(number)
        row = json.loads(sample["json"])
        key = f"{number:03}.png" if number % 3 else f"b/{number:03}.png"
        assert row["ids"] == by_key[key]["ids"]
        assert row.get("caption") == (f"no {number}" if number < 20 else None)
    assert json.loads(found["x/text"]["json"])["error"] == "no image in this sample"


def test_files_become_samples_with_numbers(bulk, folder, tmp_path):
    done = bulk(folder / "001.png", folder / "b", "--format", "webdataset", "--restart")
    assert (done.returncode, done.stderr) == (0, "")
    found = samples(tmp_path / "out" / "part-00000-000000.tar")
    assert found["00000-000000000"]["png"] == picture(1)
    assert json.loads(found["00000-000000001"]["json"])["key"] == "000.png"


def test_shards_with_one_key_twice_and_damage(bulk, shards, tmp_path):
    whole = (shards / "0.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:3000])
    shard(tmp_path / "twice.tar", {"a.png": picture(1), "b.png": picture(2), "a.jpg": picture(3)})
    (tmp_path / "none.tar").write_bytes(b"no archive")
    names = ("cut.tar", "twice.tar", "none.tar")
    done = bulk(*(tmp_path / name for name in names))
    assert done.returncode == 0
    found = {
        name: [row for row in rows(tmp_path / "out") if row["source"].endswith(name)]
        for name in names
    }
    assert [row["key"] for row in found["twice.tar"]] == ["a", "b", "a#2"]
    assert found["cut.tar"][-1]["error"].startswith("the shard is damaged after ")
    (damaged,) = found["none.tar"]
    assert damaged["error"].startswith("the shard is damaged after 0 images: ")


def test_parquet_with_bytes_places_or_both(bulk, folder, by_key, tmp_path):
    names = sorted(by_key)
    contents = [(folder / name).read_bytes() for name in names]
    tables = {
        "bytes": {"image": contents, "key": names},
        "both": {"image": [{"bytes": content, "path": None} for content in contents]},
        "places": {"path": [str(folder / name) for name in names], "key": names},
    }
    for name, table in tables.items():
        parquet.write_table(pyarrow.table(table), tmp_path / f"{name}.parquet", row_group_size=10)
    done = bulk(*(tmp_path / f"{name}.parquet" for name in tables))
    assert done.returncode == 0
    found = rows(tmp_path / "out")
    for name in tables:
        its = [row for row in found if row["source"].endswith(f"{name}.parquet")]
        if name == "both":
            assert [row["key"] for row in its] == [str(number) for number in range(len(names))]
            its = [row | {"key": key} for row, key in zip(its, names, strict=True)]
        same(its, by_key)


def test_a_list_names_each_picture_once(bulk, folder, by_key, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    listed = [*sorted(by_key), "001.png", "missing.png"]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    done = bulk(tmp_path / "list.txt")
    assert done.returncode == 0
    assert "1 named twice, and tagged once" in lines(done.stdout)
    *found, missing = rows(tmp_path / "out")
    same(found, by_key)
    assert (missing["key"], missing["error"]) == ("missing.png", "No such file or directory")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_addresses(bulk, folder, shards, by_key, tmp_path):
    root = tmp_path / "web"
    shutil.copytree(folder, root / "many")
    shutil.copy(shards / "0.tar", root)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=root)) as http:
        threading.Thread(target=http.serve_forever).start()
        address = f"http://127.0.0.1:{http.server_port}"
        done = bulk(f"{address}/many/", f"{address}/0.tar", f"{address}/none.png")
        http.shutdown()
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(tmp_path / "out")
    same([row for row in found if row["source"].endswith("/many/")], by_key)
    assert len([row for row in found if row["source"].endswith("0.tar")]) == 21
    (none,) = (row for row in found if row["key"].endswith("none.png"))
    assert none["error"] == "No such file"


def go_on_until_done(bulk, folder, kills):
    """Run, killed after random times, and at last to the end."""
    chance = random.Random(kills)
    longest = 0.0
    for _ in range(kills):
        with bulk(folder, "--embedding", runner=start) as process:
            try:
                # Later and later, so that kills meet all of a run.
                process.wait(timeout=chance.uniform(0.3, 0.8 + longest))
            except TimeoutExpired:
                longest += 0.1
            process.send_signal(signal.SIGKILL)
    return bulk(folder, "--embedding")


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_no_row_is_missing_or_there_twice(
    bulk, folder, expected, by_key, tmp_path, kills
):
    done = go_on_until_done(bulk, folder, kills)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == [row["key"] for row in expected]
    same(found, by_key)
    assert lines(done.stdout)[0].startswith(f"{PICTURES + 1} images in {PARTS} parts: ")
    assert list((tmp_path / "out" / "_ram_bulk").glob("*.unfinished")) == []


KILLED_BY_ITSELF = """
import os, signal, sys
from pathlib import Path
from ram_client.bulk import command
left = int(sys.argv.pop(1))
def deadly(function):
    def call(*arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
os.fsync, Path.rename = deadly(os.fsync), deadly(Path.rename)
sys.exit(command.main())
"""


@pytest.mark.slow
def test_killed_before_each_step_that_publishes(server, shards, tmp_path):
    """Each run is killed at its n-th sync or rename; the next goes on from there."""
    output, moments = tmp_path / "out", 0
    arguments = [shards / "0.tar", "--server", server.grpc, "--shard-size", "9", "-o", output]
    for moment in range(1, 30):
        done = run(*arguments, command=[sys.executable, "-c", KILLED_BY_ITSELF, str(moment)])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        moments += 1
    assert moments >= 5
    assert [row["key"] for row in rows(output)] == [f"{n:03}" for n in range(20)] + ["x/text"]
