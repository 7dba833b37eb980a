"""What the command line leaves in files if something goes wrong."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import PIL.Image
import pytest
from ram_client import ImageUnreadable, Tag, cli
from ram_client.files import find_images
from ram_client.sinks.captions import Captions
from ram_client.sinks.sidecars import Sidecars
from ram_client.sinks.sink import WriteFailed
from support import PATIENCE
from support.written_files import listing, read_table

TABLES = ["--csv", "--parquet", "--sqlite"]


def test_two_pictures_of_one_caption_are_reported(tag, pair):
    shutil.copy(pair / "a.png", pair / "a.webp")
    status, _, err = tag(pair, "--txt")
    assert status == 1
    assert err[0] == f"ram-tag: {pair}/a.webp: a.txt is the caption of a.png already"
    assert err[2] == "ram-tag: failed: 1 × a.txt is the caption of a.png already"


@pytest.mark.parametrize("option", TABLES)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"a,b\n1,2\n", ""), (b"\0\1\2" * 300, ""), (None, "is not a file")],
)
def test_another_programs_file_is_left_as_it_is(tag, pair, option, content, complaint):
    table = pair / "other"
    if content is None:
        table.mkdir()
        complaint = complaint if option != "--sqlite" else "unable to open database file"
    else:
        table.write_bytes(content)
    status, out, err = tag(pair, option, table)
    assert (status, out) == (1, [])
    assert err[0].startswith(f"ram-tag: {table}: ") and complaint in err[0]
    assert content is None or table.read_bytes() == content
    assert not any(name.startswith("other.") for name in listing(pair))


def test_another_programs_database_is_left_as_it_is(tag, pair):
    with sqlite3.connect(pair / "photos.db") as database:
        database.execute("CREATE TABLE files (id, name)")
    status, _, err = tag(pair, "--sqlite", pair / "photos.db")
    assert status == 1
    assert err[0].endswith("photos.db: is another program's database, and was left as it is")


@pytest.mark.parametrize("option", TABLES)
def test_a_table_in_a_folder_that_is_not_there(tag, pair, option):
    status, _, err = tag(pair, option, pair / "none" / "tags")
    assert status == 1
    assert err[0].startswith(f"ram-tag: {pair}/none/tags: ")


def test_a_table_that_another_command_writes(tag, pair, command, transport_server):
    transport_server.hang()
    arguments = [str(pair), "--csv", str(pair / "tags.csv"), "--server", transport_server.address]
    with subprocess.Popen([*command, *arguments]) as other:
        assert transport_server.called.wait(timeout=PATIENCE)
        status, _, err = tag(pair, "--csv", pair / "tags.csv")
        other.send_signal(signal.SIGKILL)
    assert (status, err[0]) == (1, f"ram-tag: {pair}/tags.csv: another ram-tag is writing it")


def test_after_a_kill_the_journal_is_taken_over(tag, pair):
    rows = [["x.png", "cat", "猫", 0.5, 3, True]]
    journal = json.dumps(rows) + "\n" + json.dumps([["torn.png"]])[:-3]
    Path("tags.csv.part").write_text(journal)
    assert tag(pair / "a.png", "--csv", "tags.csv")[0] == 0
    files = [file for file, *_ in read_table(Path("tags.csv"))]
    assert files == ["x.png", f"{pair}/a.png", f"{pair}/a.png"]
    assert not Path("tags.csv.part").exists()


def test_bad_pictures_get_a_line_each_and_the_rest_is_kept(tag, pair):
    (pair / "b.jpg").write_text("no image")
    PIL.Image.new("RGB", (4000, 2500)).save(pair / "e.bmp")  # 30 MB
    status, out, err = tag(pair, pair / "none", "--csv", "tags.csv", "--txt")
    assert (status, out) == (1, [])
    for line, name in zip(err, ("b.jpg: image", "e.bmp: image", "none"), strict=False):
        assert line.startswith(f"ram-tag: {pair}/{name}: ")
    assert err[3].startswith("ram-tag: 2 tagged, 0 without tags, 3 failed, in ")
    assert [line[:20] for line in err[4:7]] == ["ram-tag: failed: 1 ×"] * 3
    assert {file for file, *_ in read_table(Path("tags.csv"))} == {f"{pair}/a.png", f"{pair}/c.JPG"}


def test_without_a_server_no_table_is_left(pair, unreachable, capsys, tmp_path):
    before = listing(tmp_path)
    table = ["--csv", str(tmp_path / "tags.csv"), "--xmp", "--txt"]
    assert cli.main([str(pair), *table, "--server", unreachable]) == 1
    first, *summary = capsys.readouterr().err.splitlines()
    assert first.startswith(f"ram-tag: no server at {unreachable}: ")
    assert summary[0].startswith("ram-tag: 0 tagged, 0 without tags, 1 failed, in ")
    assert listing(tmp_path) == before


def test_a_picture_is_never_its_own_caption(tag, pair):
    shutil.copy(pair / "a.png", pair / "photo.txt")
    status, _, err = tag(pair / "photo.txt", "--txt")
    assert status == 1
    assert err[0].endswith("photo.txt: its caption would have the same name: see --txt-suffix")
    assert (pair / "photo.txt").read_bytes() == (pair / "a.png").read_bytes()


def test_what_cannot_be_written_fails_alone(tag, pair):
    (pair / "a.txt").mkdir()
    (pair / "a.png.xmp").write_bytes(b"no XML")
    status, _, err = tag(pair, "--txt", "--csv", "tags.csv")
    assert status == 1
    assert err[0] == f"ram-tag: {pair}/a.txt: Is a directory"
    assert {file for file, *_ in read_table(Path("tags.csv"))} == {f"{pair}/c.JPG"}
    status, _, err = tag(pair, "--xmp")
    assert (status, err[0].split(": ")[1]) == (1, f"{pair}/a.png.xmp")
    assert (pair / "c.JPG.xmp").exists()


@pytest.fixture
def closed(photos):
    """A folder that this process may read and not write, with a picture and a closed subfolder."""
    folder = Path(tempfile.mkdtemp())
    (folder / "a.png").write_bytes(photos[0])
    (folder / "within").mkdir(mode=0)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:  # root may do everything
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    for path in (folder, folder / "within"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written(closed):
    captions = Captions(suffix=".txt", separator=", ", append=False, language="en")
    sidecars = Sidecars(name=None, prefix="ram", language="en")
    for sink, name in ((captions, "a.txt"), (sidecars, "a.png.xmp")):
        with pytest.raises(WriteFailed, match=f"^{closed}/{name}: Permission denied$"):
            sink.add(closed / "a.png", [Tag("cat", "猫", 0.9, 0)])


def test_a_subfolder_that_cannot_be_read_is_reported(closed):
    problems = []
    assert find_images(closed, recursive=True, problems=problems) == [closed / "a.png"]
    assert [str(problem) for problem in problems] == [f"{closed}/within: Permission denied"]
    with pytest.raises(ImageUnreadable, match="within: Permission denied"):
        find_images(closed, recursive=True)
    with pytest.raises(ImageUnreadable, match="within: Permission denied"):
        find_images(closed / "within", recursive=True)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_was_done(command, pair, transport_server, signal_number):
    transport_server.answers = 1  # the second file is waited for
    table, captions = pair / "tags.csv", pair / "a.txt"
    command = [*command, str(pair), "--csv", str(table), "--txt", "--concurrency", "1"]
    command += ["--jsonl", "--server", transport_server.address]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, **streams) as process:
        assert process.stdout.readline()  # the first is written
        assert transport_server.hanging.wait(timeout=PATIENCE)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=PATIENCE)
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.startswith("ram-tag: 0 tagged, 1 without tags, 0 failed, in ")
        assert read_table(table) == [(f"{pair}/a.png", "", "")]
    else:
        assert (pair / "tags.csv.part").read_text() == json.dumps(
            [[f"{pair}/a.png", None, None, None, None, None]]
        ) + "\n"
    assert captions.read_text() == ""
    assert not list(pair.glob(".ram-tag-*"))


def test_a_closed_pipe_keeps_what_was_written(command, pair, transport_server):
    reader, writer = os.pipe()
    os.close(reader)
    command = [*command, str(pair), "--jsonl", "--csv", str(pair / "tags.csv")]
    done = subprocess.run(
        [*command, "--concurrency", "1", "--server", transport_server.address],
        stdout=writer,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr.startswith("ram-tag: 0 tagged, 1 without tags, 0 failed, in ")
    assert read_table(pair / "tags.csv") == [(f"{pair}/a.png", "", "")]


def run_on_a_full_disk(words):
    """A limit on the size of files stands for it: writing fails in the same way."""
    return subprocess.run(
        ["bash", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "bash", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def to_a_table(command, pair, transport_server):
    """The command that writes a picture's tags into `tags.csv`."""
    words = [*command, str(pair / "a.png"), "--csv", str(pair / "tags.csv"), "--quiet"]
    return [*words, "--server", transport_server.address]


def test_a_full_disk_is_one_line(to_a_table, pair):
    (pair / "tags.csv").write_text("")
    done = run_on_a_full_disk(to_a_table)
    assert (done.returncode, done.stderr) == (1, f"ram-tag: {pair}/tags.csv: File too large\n")


def test_a_journal_that_cannot_be_merged_is_kept(to_a_table, pair):
    """The table cannot be written at the next run either, as on a disk that is still full."""
    journal = pair / "tags.csv.part"
    rows = json.dumps([["x.png", "cat", "猫", 0.5, 3, True]]) + "\n"
    journal.write_text(rows)
    done = run_on_a_full_disk(to_a_table)
    assert done.returncode == 1
    assert done.stderr.endswith(f" (what was done is in {journal}: run again)\n")
    assert journal.read_text() == rows
    assert subprocess.run(to_a_table, timeout=PATIENCE, check=False).returncode == 0
    assert read_table(pair / "tags.csv")[0] == ("x.png", "cat", "猫")
