"""The client as a package: what an index and pip get."""

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from ram_client import __version__
from support import PATIENCE

PROJECT = Path(__file__).parents[1]
ROOT = PROJECT.parents[1]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def run(*words, **options):
    done = subprocess.run(
        [*map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, PROJECT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def metadata(built):
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def test_the_index_would_take_both(built):
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", *built)


def test_what_the_wheel_contains(built):
    sources = {
        str(path.relative_to(PROJECT))
        for path in [*PROJECT.glob("ram_client/**/*"), *PROJECT.glob("*.py")]
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (licence,) = (name for name in names if name.endswith("/licenses/LICENSE"))
        assert wheel.read(licence).decode() == (ROOT / "LICENSE").read_text()
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert "ram_client/py.typed" in names


def test_what_the_sdist_contains(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "ram_tag.py"} <= names
    assert not any(name.startswith("tests") for name in names)


def test_the_version_is_the_changelogs(metadata):
    changes = (ROOT / "CHANGELOG.md").read_text()
    section = re.search(r"^## .*?(?=^## |\Z)", changes, re.MULTILINE | re.DOTALL)[0]
    assert re.search(r"\d+\.\d+\.\d+", section)[0] == __version__ == metadata["Version"]


def test_the_metadata(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {"cli", "heif", "parquet", "raw"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier")


def test_the_page_on_the_index_has_no_link_that_leads_nowhere(metadata):
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert all(link.startswith(("https://", "#")) for link in links)


def test_the_wheel_runs_without_the_checkout(built, tmp_path):
    """Pure Python runs from the archive; the dependencies are this environment's."""
    environment = os.environ | {"PYTHONPATH": str(built[1])}
    code = "import ram_client, ram_tag, sys; print(ram_client.__file__); sys.exit(ram_tag.main())"
    words = [sys.executable, "-c", code, "--version"]
    place, version = run(*words, cwd=tmp_path, env=environment).splitlines()
    assert place.startswith(str(built[1]))
    assert version == f"ram-tag {__version__}"


@pytest.fixture(scope="module")
def bare(built, tmp_path_factory):
    """A virtual environment with nothing but the wheel; its dependencies are this one's."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*pip, "--quiet", built[1])
    (packages,) = folder.glob("lib/python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "these.pth").write_text(here + "\n")
    return folder


@pytest.mark.slow
def test_the_wheel_installs_its_commands(bare):
    assert run(bare / "bin" / "ram-tag", "--version", cwd=bare) == f"ram-tag {__version__}\n"
    place = run(bare / "bin" / "python", "-c", "import ram_client; print(ram_client)", cwd=bare)
    assert str(bare) in place
    for name in SETTINGS["scripts"]:
        assert (bare / "bin" / name).exists()


@pytest.mark.slow
def test_strict_types_are_there_for_users(bare, tmp_path):
    """mypy finds py.typed in the installed package, and the types of its calls."""
    (tmp_path / "user.py").write_text(
        "from ram_client import RamClient\nwith RamClient() as client:\n"
        "    reveal_type(client.tag('a.jpg'))\n"
    )
    options = ["--python-executable", bare / "bin" / "python", "--config-file=", "user.py"]
    found = run(sys.executable, "-m", "mypy", "--follow-untyped-imports", *options, cwd=tmp_path)
    assert 'Revealed type is "list[ram_client.tag.Tag]"' in found


@pytest.mark.slow
def test_all_extras_install_from_the_index(tmp_path):
    """With the network: pip resolves them, and each does its part."""
    run(sys.executable, "-m", "venv", tmp_path / "v")
    target = f"{PROJECT}[cli,heif,raw,parquet]"
    run(tmp_path / "v" / "bin" / "pip", "install", "--quiet", target, cwd=tmp_path)
    code = (
        "import lxml.etree, pi_heif, rawpy, pyarrow.parquet; from ram_client import formats;"
        "assert {'.heic', '.dng'} <= formats.suffixes()"
    )
    run(tmp_path / "v" / "bin" / "python", "-c", code, cwd=tmp_path)
    assert "--xmp" in run(tmp_path / "v" / "bin" / "ram-tag", "--help", cwd=tmp_path)
