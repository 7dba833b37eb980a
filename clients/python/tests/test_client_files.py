"""What the command line writes into files, on a real tritonserver with a tiny RAM."""

import csv
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
from ram_client import ImageUnreadable, RamClient, Tag, cli
from ram_client.files import find_images
from ram_client.sinks.captions import Captions
from ram_client.sinks.sidecars import Sidecars
from ram_client.sinks.sink import WriteFailed

TABLES = ["--csv", "--parquet", "--sqlite"]


@pytest.fixture
def tag(server, capsys, tmp_path, monkeypatch):
    """Run the command in this process: its exit status, stdout's lines and stderr's."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, threshold="0", top_k="2"):
        options = ["--server", server.grpc, "--threshold", threshold, "--top-k", top_k]
        status = cli.main([*map(str, arguments), *options])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return run


@pytest.fixture
def pair(album):
    """The album without what is not an image: two pictures."""
    (album / "b.jpg").unlink()
    return album


def best(server, path, count=2):
    with RamClient(server.grpc) as client:
        return client.tag(path, threshold=0, top_k=count)


def read_table(path):
    """The rows of a table: file, English and Chinese name."""
    if path.suffix == ".csv":
        rows = csv.DictReader(path.open(encoding="utf-8", newline=""))
        return [(row["file"], row["name"], row["name_zh"]) for row in rows]
    if path.suffix == ".parquet":
        from pyarrow import parquet

        columns = parquet.read_table(path).select(["file", "name", "name_zh"]).to_pylist()
        return [tuple(name or "" for name in row.values()) for row in columns]
    query = (
        "SELECT path, coalesce(tags.name, ''), coalesce(name_zh, '')"
        " FROM files LEFT JOIN tags ON file_id = id ORDER BY id, place"
    )
    with sqlite3.connect(path) as database:
        return database.execute(query).fetchall()


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_captions(tag, server, pair):
    first = best(server, pair / "a.png")
    status, out, err = tag(pair, "--txt")
    assert (status, out) == (0, [])
    assert err[0].startswith("ram-tag: 2 tagged, 0 without tags, 0 failed, in ")
    assert err[1].startswith("ram-tag: most frequent: tag ")
    caption = pair / "a.txt"
    assert caption.read_text() == f"{first[0].name}, {first[1].name}\n"
    assert listing(pair) == ["a.png", "a.txt", "c.JPG", "c.txt", "more/d.bmp", "notes.txt"]
    caption.write_text(f"my cat, {first[1].name}")
    tag(pair / "a.png", "--txt", "--append", "--language", "both")
    names = ["my cat", first[1].name, first[0].name, first[0].name_zh, first[1].name_zh]
    assert caption.read_text() == ", ".join(names) + "\n"
    tag(pair / "a.png", "--txt", "--language", "zh", "--separator", "|", "--quiet")
    assert caption.read_text() == f"{first[0].name_zh}|{first[1].name_zh}\n"
    tag(pair / "a.png", "--txt", threshold="1")
    assert caption.read_text() == ""


def test_undesired_tags_are_read_from_a_file(tag, server, pair, tmp_path):
    first, second, third = best(server, pair / "a.png", 3)
    (tmp_path / "undesired").write_text(f"{first.name}\n")
    arguments = ["--exclude-file", "undesired", "--exclude", second.name_zh]
    tag(pair / "a.png", "--txt", *arguments, top_k="1")
    assert (pair / "a.txt").read_text() == f"{third.name}\n"


def test_two_pictures_of_one_caption_are_reported(tag, pair):
    shutil.copy(pair / "a.png", pair / "a.webp")
    status, _, err = tag(pair, "--txt")
    assert status == 1
    assert err[0] == f"ram-tag: {pair}/a.webp: a.txt is the caption of a.png already"
    assert err[2] == "ram-tag: failed: 1 × a.txt is the caption of a.png already"


@pytest.mark.parametrize("option", TABLES)
def test_a_table_keeps_what_it_has_and_replaces_what_is_tagged_again(tag, server, pair, option):
    table = pair / f"tags.{option.removeprefix('--')}"
    names = {path: best(server, path) for path in (pair / "a.png", pair / "c.JPG")}
    rows = {
        path: [(str(path), tag.name, tag.name_zh) for tag in tags] for path, tags in names.items()
    }
    assert tag(pair / "c.JPG", pair / "c.JPG", option, table)[0] == 0
    assert read_table(table) == rows[pair / "c.JPG"]
    status, _, err = tag(pair, option, table, "--skip-existing")
    assert (status, err[0][:59]) == (
        0,
        "ram-tag: 1 tagged, 0 without tags, 0 failed, 1 skipped, in ",
    )
    assert sorted(read_table(table)) == sorted([*rows[pair / "a.png"], *rows[pair / "c.JPG"]])
    tag(pair / "c.JPG", option, table, threshold="1")
    assert sorted(read_table(table)) == sorted([*rows[pair / "a.png"], (f"{pair}/c.JPG", "", "")])
    assert tag(pair / "c.JPG", option, table, "--skip-existing")[2][0].count("1 skipped")
    assert f"{table.name}.part" not in listing(pair)


def test_the_database_can_be_queried(tag, server, pair):
    tag(pair, "--sqlite", "tags.sqlite")
    (first, *_) = best(server, pair / "a.png")
    with sqlite3.connect("tags.sqlite") as database:
        rows = database.execute(
            "SELECT name_zh, score, tag_id FROM file_tags WHERE path = ? AND name = ?",
            [str(pair / "a.png"), first.name],
        ).fetchall()
    assert rows == [(first.name_zh, pytest.approx(first.score, abs=1e-5), first.id)]


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
        assert transport_server.called.wait(timeout=60)
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


def test_a_dry_run_writes_nothing(tag, server, pair, tmp_path):
    names = [tag.name for tag in best(server, pair / "a.png")]
    before = listing(tmp_path)
    sinks = ["--xmp", "--txt", "--csv", "t.csv", "--sqlite", "t.sqlite", "--dry-run"]
    status, out, _ = tag(pair / "a.png", *sinks, "--skip-existing")
    assert (status, listing(tmp_path)) == (0, before)
    joined = ", ".join(names)
    assert out == [
        f"{pair}/a.png.xmp: add {joined}",
        f"{pair}/a.txt: {joined}",
        f"t.csv: {pair}/a.png: {joined}",
        f"t.sqlite: {pair}/a.png: {joined}",
    ]


def test_sidecars_in_both_languages_and_out_again(tag, server, pair):
    pictures = {path: path.read_bytes() for path in (pair / "a.png", pair / "c.JPG")}
    before = listing(pair)
    status, out, _ = tag(pair, "--xmp", "--language", "both", "--xmp-prefix", "st")
    assert (status, out) == (0, [])
    text = (pair / "a.png.xmp").read_text()
    for found in best(server, pair / "a.png"):
        for name in (found.name, found.name_zh):
            assert f"<rdf:li>{name}</rdf:li>" in text and f"<rdf:li>st|{name}</rdf:li>" in text
    written = (pair / "a.png.xmp").stat()
    assert tag(pair, "--xmp", "--language", "both", "--xmp-prefix", "st")[0] == 0
    assert (pair / "a.png.xmp").stat().st_mtime_ns == written.st_mtime_ns
    (pair / "c.JPG.xmp").write_text("<x")
    skipping = ["--xmp", "--skip-existing", "--xmp-prefix", "st"]
    status, _, err = tag(pair, *skipping)
    assert status == 1
    assert err[0].startswith(f"ram-tag: {pair}/c.JPG.xmp: is not well-formed XML: ")
    assert err[1].startswith("ram-tag: 0 tagged, 0 without tags, 1 failed, 1 skipped, in ")
    (pair / "c.JPG.xmp").unlink()
    remove = [pair, "--xmp-remove", "--xmp-prefix", "st"]
    assert tag(*remove, "--dry-run") == (0, [f"{pair}/a.png.xmp: delete"], [])
    assert tag(*remove) == (0, [f"{pair}/a.png.xmp: delete"], [])
    assert listing(pair) == before
    assert all(path.read_bytes() == data for path, data in pictures.items())


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


def test_json_lines_beside_files(tag, pair):
    status, out, _ = tag(pair, "--txt", "--jsonl")
    assert status == 0
    assert [json.loads(line)["file"] for line in out] == [f"{pair}/a.png", f"{pair}/c.JPG"]


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


def test_names_that_are_not_utf_8(tag, pair):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(pair / "a.png", pair / name)
    tables = ["--csv", "tags.csv", "--sqlite", "tags.sqlite"]
    status, _, err = tag(pair / name, "--xmp", "--txt", *tables)
    assert (status, len(err)) == (0, 2)
    assert (pair / (name + ".xmp")).exists()
    assert (pair / os.fsdecode(b"caf\xe9.txt")).exists()
    for table in ("tags.csv", "tags.sqlite"):
        assert {file for file, *_ in read_table(Path(table))} == {f"{pair}/caf\\udce9.png"}
    assert tag(pair / name, *tables, "--skip-existing")[2][0].count("1 skipped")


def test_a_list_with_nul_bytes(ram_tag, server, pair):
    odd = pair / "a\nb.png"
    shutil.copy(pair / "a.png", odd)
    paths = f"{odd}\0{pair / 'c.JPG'}\0"
    done = ram_tag("-", "--null", "--jsonl", "--server", server.grpc, input=paths)
    assert (done.returncode, done.stderr) == (0, "")
    files = [json.loads(line)["file"] for line in done.stdout.splitlines()]
    assert files == [str(odd), f"{pair}/c.JPG"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--skip-existing"], "--skip-existing needs one of --xmp, --txt, --where"),
        (["--dry-run"], "--dry-run needs --xmp-remove or one of --xmp"),
        (["--dry-run", "--txt", "--json"], "--json and --jsonl cannot be combined"),
        (["--xmp-remove", "--txt"], "--xmp-remove cannot be combined with"),
        (["--csv", "a", "--sqlite", "./a"], "two tables cannot be the same file"),
        (["--xmp", "--xmp-prefix", "a|b|"], "'a|b|' is not a name"),
        (["--txt", "--txt-suffix", "txt"], "'txt' is not a suffix"),
        (["--txt", "--txt-suffix", ".PNG"], "'.PNG' is not a suffix for captions"),
        (["--txt", "--separator", ""], "'' is not a separator"),
        (["--urls", "--max-megabytes", "0"], "'0' is not a number of megabytes"),
    ],
)
def test_options_that_do_not_fit(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["a.jpg", *arguments])
    assert exit.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_was_done(command, pair, transport_server, signal_number):
    transport_server.answers = 1  # the second file is waited for
    table, captions = pair / "tags.csv", pair / "a.txt"
    command = [*command, str(pair), "--csv", str(table), "--txt", "--concurrency", "1"]
    command += ["--jsonl", "--server", transport_server.address]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, **streams) as process:
        assert process.stdout.readline()  # the first is written
        assert transport_server.hanging.wait(timeout=60)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=60)
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
        timeout=60,
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
        timeout=60,
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
    assert subprocess.run(to_a_table, timeout=60, check=False).returncode == 0
    assert read_table(pair / "tags.csv")[0] == ("x.png", "cat", "猫")
