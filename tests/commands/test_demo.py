"""The demo: server up, pictures tagged through gRPC, server down."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from ram_triton.repository.layout import MANIFEST
from support import PATIENCE


def demo(*arguments, cwd):
    command = [sys.executable, "-m", "ram_triton", "demo", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, check=False, timeout=PATIENCE
    )


@pytest.fixture
def pictures(picture_files, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in picture_files[:2]:
        shutil.copy(path, folder)
    return folder


def test_every_picture_is_tagged_in_both_languages_and_the_server_stopped(
    repository, pictures, tmp_path
):
    result = demo("--repository", repository, "--images", pictures, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Starting tritonserver on loopback\n")
    for path in pictures.iterdir():
        assert f"pictures/{path.name}" in result.stdout
    assert "tag " in result.stdout and "标签" in result.stdout
    assert "Stopped tritonserver" in result.stdout


@pytest.mark.slow
def test_what_the_manifest_notes_of_the_model_is_shown(copied, pictures, tmp_path):
    manifest = (copied / MANIFEST).read_text()
    (copied / MANIFEST).write_text(manifest.replace('"note": null', '"note": "only a test"'))
    result = demo("--repository", copied, "--images", pictures, cwd=tmp_path)
    assert "Note: only a test\n" in result.stdout


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_server_in_order(repository, tmp_path, stop):
    command = [sys.executable, "-m", "ram_triton", "demo", "--repository", repository]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipe) as process:
        process.stdout.readline()  # "Starting tritonserver"
        process.send_signal(stop)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert stderr == "ram-triton demo: interrupted, run it again\n"
    assert process.returncode == 128 + stop
    assert list(tmp_path.iterdir()) == []


def test_a_repository_without_a_model_is_one_line(tmp_path):
    result = demo("--repository", tmp_path, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        f"ram-triton demo: {tmp_path}: contains no model: run 'make model' or 'make demo' first\n",
    )
