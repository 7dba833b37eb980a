"""Servers that misbehave as told, pictures, and the command line, as a process or in this one."""

import io
import socket
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from ram_client import cli
from support import PATIENCE
from support.transport_server import TransportServer


@pytest.fixture
def transport_server():
    server = TransportServer()
    yield server
    server.stop()


@pytest.fixture
def unreachable():
    """An address where nothing listens, and nothing else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="session")
def pictures():
    """Three pictures that differ, as Pillow images."""
    gradient = PIL.Image.linear_gradient("L")
    return [
        PIL.Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))),
        PIL.Image.radial_gradient("L").convert("RGB"),
        PIL.Image.new("RGB", (64, 48), "orange"),
    ]


@pytest.fixture(scope="session")
def photos(pictures):
    """The same three as the bytes of encoded images, each in another format."""
    encoded = []
    for picture, image_format in zip(pictures, ("PNG", "JPEG", "BMP"), strict=True):
        buffer = io.BytesIO()
        picture.save(buffer, format=image_format)
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture
def album(tmp_path, photos):
    """A folder of three good images, a broken one, a text file and a subfolder."""
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    for name, photo in zip(("a.png", "c.JPG", "more/d.bmp"), photos, strict=True):
        (folder / name).write_bytes(photo)
    (folder / "b.jpg").write_bytes(photos[1][:40])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def pair(album):
    """The album without what is not an image: two pictures."""
    (album / "b.jpg").unlink()
    return album


@pytest.fixture(scope="session")
def command():
    """How to start the command line."""
    return [sys.executable, "-m", "ram_tag"]


@pytest.fixture
def ram_tag(tmp_path, command):
    """Run the command to its end; what it printed and its exit status."""

    def run(*arguments, **options):
        return subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            cwd=Path(tmp_path),
            **options,
        )

    return run


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
