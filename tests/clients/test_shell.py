"""The commands of the shell clients' README."""

import os
import re
import sys
from pathlib import Path

import pytest
from support.language_clients import CLIENTS, PROJECT, needs, run

README = (CLIENTS / "shell" / "README.md").read_text()
COMMANDS = [
    command
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for command in (block.splitlines() if block.startswith("clients/") else [block])
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readmes_commands_print_tags(command, server, monkeypatch):
    needs("bash", "curl", "jq", "perl", "base64")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    command = command.replace("localhost:8000", server.http).replace("localhost:8001", server.grpc)
    program, _, rest = command.partition(" ")
    if program.startswith("clients/"):
        place = server.http if program.endswith("curl") and "grpc" not in program else server.grpc
        command = f"{program} --server {place} {rest}"
    command = command.replace("--label fruit --label boat", "--label 'tag 14' --label 标签5")
    done = run(["bash", "-c", f"set -o pipefail; {command}"], PROJECT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tag 14" in done.stdout


def test_all_commands_of_the_readme_are_tested():
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("program", ["tag-curl", "tag-grpcurl"])
def test_a_run_leaves_no_file_behind(program, tmp_path, monkeypatch):
    needs("bash", "jq")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = run([CLIENTS / "shell" / program, "missing.png"], PROJECT)
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())
