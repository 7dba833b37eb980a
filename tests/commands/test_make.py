"""The Makefile: its help, and calls that are refused before anything is installed or imported."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ram_triton import make_help

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
DEMO = "runs/demo/model_repository"
TARGETS = make_help.read_targets(MAKEFILE)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what make reads before it sets anything up."""
    for name in ("Makefile", "build/ram_triton/make_help.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(checkout, *arguments):
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=checkout, check=False)


def test_make_alone_lists_each_target_within_80_columns(checkout):
    result = make(checkout)
    assert result.returncode == 0, result.stderr
    for target in TARGETS:
        assert f"\n  make {target.name} " in f"\n{result.stdout}"
        assert target.group in result.stdout.splitlines()
        for variable in target.variables:
            assert f"{variable}=" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_every_target_is_listed_and_has_a_recipe():
    phony = " ".join(re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.M)).split()
    assert sorted(phony) == sorted(["help", *(target.name for target in TARGETS)])


def test_every_variable_that_a_recipe_reads_is_among_its_targets_own():
    for target in TARGETS:
        (rule,) = re.findall(rf"^({target.name}:.*\n(?:(?:\t|ifeq|endif).*\n)*)", MAKEFILE, re.M)
        options = " ".join(re.findall(r"\$\(call options,([^)]*)\)", rule)).split()
        for option in options:
            assert option.upper().replace("-", "_") in target.variables, target.name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model"], "make model needs CHECKPOINT=ram.pth VOCABULARY=DIR"),
        (["model", "CHECKPOINT=x"], "make model needs CHECKPOINT=ram.pth VOCABULARY=DIR"),
        (["model", "CHECKPOINT=x", "VOCABULARY="], "make model needs CHECKPOINT=ram.pth"),
        (
            ["model", "CHECKPONT=x", "VOCABULARY=y"],
            "CHECKPONT is not a variable of 'make model': did you mean CHECKPOINT?",
        ),
        (["train"], "make train needs CONFIG=FILE.toml"),
        (["doctor", "HTTP_PORT=1"], "HTTP_PORT is not a variable of 'make doctor': 'make serve'"),
        (["demo", "X=1"], "X is not a variable of 'make demo': 'make' lists them"),
        (["tests"], "'make tests' does not exist: 'make test' runs the tests"),
        (["build"], "'make build' does not exist: 'make model' builds a model repository"),
        (["deploy"], "'make deploy' does not exist: deploy/README.md describes the container"),
        (["docs"], "'make docs' does not exist: the documentation is in docs/"),
        (["modle"], "'make modle' does not exist: did you mean 'make model'?"),
        (["xyz"], "'make xyz' does not exist: 'make' alone lists the targets"),
        (["PYTHON=python9.9", "demo"], "'python9.9' is not installed: name a Python by PYTHON="),
    ],
)
def test_a_wrong_call_is_one_line_and_nothing_is_done(checkout, arguments, told):
    (checkout / "docs").mkdir()
    (checkout / "tests").mkdir()
    result = make(checkout, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert told in line
    assert not (checkout / ".venv").exists()


def test_a_required_variable_may_come_from_the_environment(checkout, monkeypatch):
    monkeypatch.setenv("CONFIG", "train.toml")
    result = make(checkout, "--dry-run", "--assume-old=.venv/.installed-train", "train")
    assert result.returncode == 0, result.stderr
    assert "train 'train.toml'" in result.stdout


@pytest.mark.parametrize(
    "value", ["two words", "a'b", 'a"b', "$HOME", "a\\b", "标签", "a;b", "`a`"]
)
def test_a_value_reaches_the_command_as_it_was_typed(checkout, value):
    for extra in ("build", "train"):
        stamp = checkout / ".venv" / f".installed-{extra}"
        stamp.parent.mkdir(exist_ok=True)
        for name in ("pyproject.toml", "build/constraints.txt"):
            (checkout / name).touch()
        stamp.touch()
    result = make(checkout, "--dry-run", "verify", f"CHECKPOINT={value}")
    assert result.returncode == 0, result.stderr
    assert f"--checkpoint={value}" in shlex.split(result.stdout.splitlines()[-1])
    result = make(checkout, "--dry-run", "train", f"CONFIG={value}")
    assert value in shlex.split(result.stdout.splitlines()[-1])


@pytest.fixture
def ready(checkout):
    """A checkout with an environment whose `ram-triton` installs an empty demo, and lists calls."""
    weights = checkout / "build/demo/weights/ram_demo.safetensors"
    ram_triton = checkout / ".venv/bin/ram-triton"
    for file in (weights, ram_triton):
        file.parent.mkdir(parents=True)
    for file in ("pyproject.toml", "build/constraints.txt", weights, ".venv/.installed-cpu"):
        (checkout / file).touch()
    ram_triton.write_text(
        f'#!/bin/sh\necho "$@" >> calls\nmkdir -p {DEMO}/ram/1\n'
        f'case "$*" in *--install*) touch {DEMO}/ram/1/manifest.json;; esac\n'
    )
    ram_triton.chmod(0o755)
    return checkout


def installations(checkout):
    return (checkout / "calls").read_text().count("--install")


def test_the_demo_is_installed_once_and_afresh_when_its_weights_change(ready):
    for expected in (1, 1):
        assert make(ready, "demo").returncode == 0
        assert installations(ready) == expected
    (ready / DEMO / "edited").touch()
    newer = (ready / DEMO / "ram/1/manifest.json").stat().st_mtime + 1
    os.utime(ready / "build/demo/weights/ram_demo.safetensors", (newer, newer))
    assert make(ready, "demo").returncode == 0
    assert installations(ready) == 2
    assert not (ready / DEMO / "edited").exists()


def test_a_demo_that_another_make_has_just_installed_stays(ready, monkeypatch):
    """It does so while this one waits: here in the place of `flock`, which then runs."""
    flock = ready / "bin" / "flock"
    flock.parent.mkdir()
    flock.write_text(
        f"#!/bin/sh\n.venv/bin/ram-triton --install\ntouch {DEMO}/served\n"
        f'exec {shutil.which("flock")} "$@"\n'
    )
    flock.chmod(0o755)
    monkeypatch.setenv("PATH", str(flock.parent), prepend=os.pathsep)
    assert make(ready, "demo").returncode == 0
    assert (ready / DEMO / "served").exists()
    assert installations(ready) == 1
