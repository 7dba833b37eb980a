"""The clients of other languages: how each is built, and what it needs for that."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLIENTS = PROJECT / "clients"
BUILD_TIME = 300  # seconds, generous: others compile on the same cores


def needs(*tools: str) -> None:
    """Skip where a tool of the language is missing."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def run(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )


def build(command: Sequence[object], folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of(language: str, folder: Path) -> Path:
    """The client's folder and the proto beside it, copied to where it may be built."""
    for name in (language, "proto"):
        ignore = shutil.ignore_patterns("node_modules", "build")
        shutil.copytree(CLIENTS / name, folder / name, ignore=ignore)
    return folder / language


def node(make_once) -> list[object]:
    needs("node", "npm")

    def make(folder: Path) -> None:
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        done = run(["npm", "ci", *options], copy_of("node", folder))
        for reason in ("ENOTFOUND", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "EAI_AGAIN", "E404"):
            if done.returncode and reason in done.stderr:
                pytest.skip(f"npm cannot fetch the packages ({reason})")
        assert done.returncode == 0, done.stderr

    return ["node", make_once("client_node", make) / "node" / "tag.js"]


BUILDERS = {"node": node}
