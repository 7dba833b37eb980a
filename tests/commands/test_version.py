"""One version: the client's file is the only place that states it."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import ram_client
import ram_triton

ROOT = Path(__file__).parents[2]


def test_package_client_and_both_distributions_share_one_version():
    assert ram_triton.__version__ == version("ram-triton") == ram_client.__version__
    for file in (ROOT / "pyproject.toml", ROOT / "clients/python/pyproject.toml"):
        settings = tomllib.loads(file.read_text())
        assert settings["project"]["dynamic"] == ["version"]
        place = file.parent / settings["tool"]["hatch"]["version"]["path"]
        assert place.resolve() == Path(ram_client.__file__)
