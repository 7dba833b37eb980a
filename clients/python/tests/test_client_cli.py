"""The command line as far as it goes without a model; the rest is in test_client_on_triton.py."""

import json
import os
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ram_client.output import Tables
from ram_client.tag import Tag
from support import PATIENCE


def lines(text):
    return text.splitlines()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: FILE|FOLDER"),
        (["a.jpg", "--threshold", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["a.jpg", "--threshold", "nan"], "'nan' is not a number from 0 to 1"),
        (["a.jpg", "--top-k", "-1"], "'-1' is not a count"),
        (["a.jpg", "--concurrency", "0"], "'0' is not a count from 1"),
        (["a.jpg", "--timeout", "0"], "'0' is not a number of seconds"),
        (["a.jpg", "--json", "--jsonl"], "not allowed with argument"),
        (["a.jpg", "--labels", "none.txt"], "none.txt: No such file or directory"),
    ],
)
def test_wrong_usage(ram_tag, arguments, complaint):
    done = ram_tag(*arguments)
    assert done.returncode == 2
    assert complaint in lines(done.stderr)[-1]


def test_a_list_of_labels_with_more_than_names_is_refused_with_its_line(ram_tag, tmp_path):
    (tmp_path / "mine.txt").write_text("cat\napple\t苹果\t0.3\n", encoding="utf-8")
    done = ram_tag("a.jpg", "--labels", "mine.txt")
    assert done.returncode == 2
    assert lines(done.stderr)[-1].endswith("mine.txt, line 2: contains more than a name")


def test_the_table_marks_tags_that_are_not_the_models_own(capsys):
    Tables().add(Path("a.jpg"), [Tag("cat", "猫", 0.9, 0), Tag("elf", "", 0.6, 1, known=False)])
    _, cat, elf, *_ = lines(capsys.readouterr().out)
    assert cat.split() == ["0.900", "cat", "猫"]
    assert elf.split() == ["0.600", "elf", "not", "the", "model's", "own"]


def test_help_names_every_default(ram_tag):
    text = ram_tag("--help").stdout
    assert all(default in text for default in ("localhost:8001", "8)", "60)"))


def test_missing_files_and_empty_folders_get_a_line_each(ram_tag, tmp_path):
    (tmp_path / "empty").mkdir()
    done = ram_tag("none.jpg", "empty", "a  b\nc.jpg")
    assert done.returncode == 1
    assert lines(done.stderr) == [
        "ram-tag: empty: no images in this folder (--recursive also looks into its subfolders)",
        "ram-tag: none.jpg: No such file or directory",
        "ram-tag: a  b c.jpg: No such file or directory",
    ]
    assert done.stdout == ""


def test_a_path_that_cannot_be_looked_at_gets_a_line(ram_tag):
    done = ram_tag("x" * 300)
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.endswith("xxx: File name too long")


def test_an_unreachable_server_gets_one_line_for_all_files(ram_tag, album, unreachable):
    done = ram_tag(album, album, "--server", unreachable)
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line == (
        f"ram-tag: no server at {unreachable}: start one with 'make serve', or name it with "
        "--server or RAM_SERVER"
    )


def test_the_servers_address_may_come_from_the_environment(ram_tag, album, unreachable):
    done = ram_tag(album, env=os.environ | {"RAM_SERVER": unreachable})
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.startswith(f"ram-tag: no server at {unreachable}: ")


def test_an_http_port_is_recognised(ram_tag, album):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        threading.Thread(target=http.serve_forever).start()
        port = http.server_port
        done = ram_tag(album, "--server", f"127.0.0.1:{port}")
        http.shutdown()
    assert done.returncode == 1
    assert lines(done.stderr) == [
        f"ram-tag: 127.0.0.1:{port} is an HTTP port; gRPC is usually one higher: "
        f"--server 127.0.0.1:{port + 1}"
    ]


def test_a_full_queue_fails_its_files_only(ram_tag, album, transport_server):
    transport_server.failures = 5  # the first file's attempts
    done = ram_tag(album, "--concurrency", "1", "--jsonl", "--server", transport_server.address)
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.endswith("Exceeds maximum queue size")
    assert len(lines(done.stdout)) == 2


def test_a_server_that_goes_away_gets_one_line_for_all_files(command, album, transport_server):
    transport_server.hang()
    command = [*command, str(album), "--server", transport_server.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert transport_server.called.wait(timeout=PATIENCE)
        transport_server.stop()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    (line,) = lines(errors)
    assert line.startswith(f"ram-tag: no server at {transport_server.address}: ")


def test_ctrl_c_ends_quietly(command, album, transport_server):
    transport_server.hang()
    command = [*command, str(album), "--server", transport_server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert transport_server.called.wait(timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (130, b"", b"")


@pytest.mark.parametrize("form", ["--json", "--jsonl", None])
def test_a_closed_pipe_ends_quietly(command, album, transport_server, form):
    reader, writer = os.pipe()
    os.close(reader)
    command = [*command, *([form] if form else []), str(album / "a.png")]
    process = subprocess.run(
        [*command, "--server", transport_server.address],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def run_in_shell(command, arguments, redirection, cwd):
    """Run the command with a redirection of bash's."""
    words = [*command, *map(str, arguments)]
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("form", ["--json", "--jsonl", None])
def test_a_full_disk_is_one_line(command, album, transport_server, form):
    arguments = [*([form] if form else []), "--server", transport_server.address, album / "a.png"]
    done = run_in_shell(command, arguments, ">/dev/full", album)
    assert (done.returncode, done.stderr) == (1, "ram-tag: stdout: No space left on device\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_results_need_no_stderr(command, album, transport_server, redirection):
    files = [album / "a.png", album / "none.jpg"]
    arguments = ["--jsonl", "--server", transport_server.address, *files]
    done = run_in_shell(command, arguments, redirection, album)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)


def test_without_a_stdout_there_is_one_line(command, album, transport_server):
    arguments = ["--server", transport_server.address, album / "a.png"]
    done = run_in_shell(command, arguments, ">&-", album)
    assert done.returncode == 1
    (line,) = lines(done.stderr)
    assert line.startswith("ram-tag: stdout is closed")
    assert transport_server.calls == 0


def test_what_looks_like_an_image_and_is_none_gets_a_line(ram_tag, tmp_path, transport_server):
    folder = tmp_path / "odd"
    (folder / "folder.jpg").mkdir(parents=True)
    (folder / "lost.jpg").symlink_to("/nonexistent")
    (folder / "good.png").write_bytes(b"x")
    os.mkfifo(folder / "pipe.jpg")
    done = ram_tag(folder, "/dev/zero", "--jsonl", "--server", transport_server.address)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert lines(done.stderr) == [
        f"ram-tag: {folder}/lost.jpg: a broken link, to /nonexistent",
        f"ram-tag: {folder}/pipe.jpg: a pipe that nobody writes to",
        "ram-tag: /dev/zero: is not a file",
    ]


def test_a_pipe_with_a_writer_is_read(command, album, transport_server):
    arguments = ["--jsonl", "--server", transport_server.address]
    done = run_in_shell(command, arguments, f"<(cat {album / 'a.png'})", album)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("https://example.com/cat.jpg", "--urls does so"),
        ("s3://bucket/a//b.png", "download it, and name the file"),
        ("FILE:///home/cat.jpg", "download it, and name the file"),
    ],
)
def test_addresses_are_not_mangled(ram_tag, address, advice):
    done = ram_tag(address)
    assert done.returncode == 1
    assert lines(done.stderr) == [f"ram-tag: {address}: addresses are not fetched: {advice}"]


@pytest.mark.parametrize("form", ["--json", "--jsonl", None])
def test_escape_sequences_never_reach_the_terminal(ram_tag, tmp_path, transport_server, form):
    names = ["red\x1b[31m.png", "title\x1b]0;x\x07.png", "c1\x9b31m.png", "\u202egnp.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    form = [form] if form else []
    done = ram_tag(*names, "no\x1b[1m.png", *form, "--server", transport_server.address)
    assert done.returncode == 1
    for text in (done.stdout, done.stderr):
        assert not any(sign in text for sign in "\x1b\x07\x9b\x7f")
    assert "no\\x1b[1m.png" in done.stderr
    done = ram_tag("a.png", "--oh\x1b[31m")
    assert (done.returncode, "\x1b" in done.stderr) == (2, False)


def test_paths_are_read_from_stdin(ram_tag, album, transport_server):
    paths = f"{album / 'a.png'}\n\n{album / 'c.JPG'}"
    done = ram_tag("-", "--jsonl", "--server", transport_server.address, input=paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert [Path(json.loads(line)["file"]).name for line in lines(done.stdout)] == [
        "a.png",
        "c.JPG",
    ]


def test_ctrl_c_keeps_what_was_done(command, album, transport_server):
    transport_server.answers = 1  # the second file is waited for
    command = [*command, str(album), "--json", "--concurrency", "1"]
    command += ["--server", transport_server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert transport_server.hanging.wait(timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, b"")
    assert [entry["file"] for entry in json.loads(output)] == [str(album / "a.png")]
