"""The README is true: its links lead somewhere, its targets exist, its commands run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def folder_with_a_photo(picture_files, tmp_path):
    (photo,) = (path for path in picture_files if path.suffix == ".jpg")
    shutil.copy(photo, tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "deploy/README.md", "loadtest/README.md"])
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert named and named <= targets


def test_every_file_that_is_named_exists():
    for path in re.findall(r"`((?:build|clients|deploy|loadtest|tests)/[\w/.]+)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("index", [0, 1])
def test_the_curl_commands_are_answered_with_tags(index, server, folder_with_a_photo):
    command = [block for block in blocks("sh") if "curl" in block][index]
    for tool in ("curl", "jq", "base64"):
        if tool in command and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    answer = subprocess.run(
        ["bash", "-c", command.replace("localhost:8000", server.http)],
        capture_output=True,
        text=True,
        cwd=folder_with_a_photo,
        check=True,
    )
    assert re.search(r'"tag \d+"', answer.stdout)
    assert "embedding" not in answer.stdout


def test_the_python_example_prints_tags(server, folder_with_a_photo, capsys, monkeypatch):
    (example,) = blocks("python")
    monkeypatch.chdir(folder_with_a_photo)
    exec(example.replace("localhost:8001", server.grpc).replace("person", "tag 1"), {})
    assert re.match(r"tag \d+ 标签\d+ 0\.\d+", capsys.readouterr().out)
