"""What the command line writes into files, on a real tritonserver with a tiny RAM."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from ram_client import RamClient, cli
from support.written_files import listing, read_table

TABLES = ["--csv", "--parquet", "--sqlite"]


def best(server, path, count=2):
    with RamClient(server.grpc) as client:
        return client.tag(path, threshold=0, top_k=count)


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


def test_json_lines_beside_files(tag, pair):
    status, out, _ = tag(pair, "--txt", "--jsonl")
    assert status == 0
    assert [json.loads(line)["file"] for line in out] == [f"{pair}/a.png", f"{pair}/c.JPG"]


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
