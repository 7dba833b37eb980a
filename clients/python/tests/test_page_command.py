"""`ram-page` without a browser: what it refuses, what it asks the server, what it leaves behind."""

import os
import sys

import pytest
from ram_client import AsyncRamClient, InvalidRequest, Tag, Unavailable
from ram_client.page.answer import Answer, ask, show, show_error
from ram_client.page.command import main

SECONDS = 60.0
SETTINGS = {"threshold": None, "top_k": 0, "labels": None}


@pytest.fixture
def picture(tmp_path, photos):
    path = tmp_path / "a.png"
    path.write_bytes(photos[0])
    return path


async def test_the_file_is_sent_as_it_is_and_each_step_is_timed(transport_server, picture):
    async with AsyncRamClient(transport_server.address) as client:
        answer = await ask(client, picture, **SETTINGS)
    assert picture.read_bytes() in transport_server.request.raw_input_contents[0]
    assert answer.tags == [] and len(answer.steps) == 3
    assert all(seconds > 0 for seconds in answer.steps.values())


async def test_without_a_server_the_error_says_how_to_start_one(unreachable, picture):
    async with AsyncRamClient(unreachable, retries=0) as client:
        with pytest.raises(Unavailable, match=f"no server at {unreachable}: start one with"):
            await ask(client, picture, **SETTINGS)


async def test_a_full_queue_is_an_error(transport_server, picture):
    transport_server.failures = 1000
    async with AsyncRamClient(transport_server.address, retries=0) as client:
        with pytest.raises(Unavailable, match="Exceeds maximum queue size"):
            await ask(client, picture, **SETTINGS)


def test_names_from_elsewhere_are_text_and_no_html():
    name = "<img src=x onerror=alert(1)>"
    page = show(Answer([Tag(name, name, 0.5, 0, known=False)], [b"map"], {"read": 0.1}))
    assert page.count("<img") == page.count('<img src="data:image/jpeg;base64,bWFw"') == 1
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 3
    assert "100.0 ms" in page and "ram-own" in page
    assert "<img" not in show_error(InvalidRequest(f"labels[0]: '{name}'"))


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--examples", "missing"], 1, "missing: No such file or directory"),
        (["--tls-ca", "missing.pem"], 1, "missing.pem: No such file or directory"),
        (["--port", "70000"], 2, "'70000' is not a number from 0 to 65535"),
        (["--max-megabytes", "x"], 2, "'x' is not a number from 0.001 to 2047"),
        (["--header", "key"], 2, "'key' is not NAME:VALUE"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments, status, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        assert main(arguments) == status
    except SystemExit as end:  # argparse's
        assert end.code == status
    printed, complaint = capsys.readouterr()
    assert not printed and told in complaint.splitlines()[-1]
    assert status == 2 or complaint.startswith("ram-page: ")


def test_a_port_that_is_taken(transport_server, capsys):
    port = transport_server.address.rpartition(":")[2]
    assert main(["--port", port]) == 1
    assert capsys.readouterr().err == (
        f"ram-page: cannot listen at 127.0.0.1:{port}: Address already in use; "
        "--port names another\n"
    )


def test_without_its_packages(monkeypatch, capsys):
    monkeypatch.setattr("os.environ", {**os.environ})
    monkeypatch.delitem(sys.modules, "ram_client.page.app", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["--port", "0"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("ram-page: gradio is missing: install the extra 'page'")
