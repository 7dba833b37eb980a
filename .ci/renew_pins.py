"""Renew build/constraints.txt: the newest versions that pyproject.toml's own pins allow.

pyproject.toml pins what the project imports, by hand; this pins what those packages require, and
notes how much each extra downloads, which set-up announces. `make pins` runs it; then `make test`.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
CONSTRAINTS = PROJECT / "build" / "constraints.txt"
PYTHONS = ("3.11", "3.12")  # as ram_triton.check_system has them: the pins must hold for all
PLATFORM = "x86_64-manylinux_2_35"
CPU_TORCH = 192  # MB of PyTorch's CPU build, which is not on PyPI
CUDA = re.compile(r"torch|triton|cuda-.*|nvidia-(?!pytriton|ml-py).*")  # what its CUDA build brings
EXTRAS = ("cpu", "build", "int8", "train", "load", "bulk", "gpu", "http", "page", "test", "pins")
HEADER = """\
# Versions of what pyproject.toml's own pins require: written by `make pins`.
# MB that an extra downloads with PyTorch's CPU build, and the CUDA build on top of that:
"""


def main() -> int:
    """Resolve all extras, and write the file; returns the exit status."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    own = {canonicalize_name(Requirement(line).name) for group in groups for line in group}
    try:
        listed = resolve(EXTRAS, PYTHONS[0])
        pins = [line for line in listed.splitlines() if line.partition("==")[0] not in own]
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text("\n".join(pins) + "\n")
            for python in PYTHONS[1:]:
                resolve(EXTRAS, python, constraints)
            sizes = {extra: download(extra, constraints, Path(folder)) for extra in EXTRAS}
    except subprocess.CalledProcessError:
        return 1  # uv has said why
    cuda = max(with_cuda - with_cpu for with_cpu, with_cuda in sizes.values())
    notes = [f"# download: {extra} {size} MB" for extra, (size, _) in sizes.items()]
    notes.append(f"# download: cuda {cuda} MB")
    CONSTRAINTS.write_text(HEADER + "\n".join([*notes, *pins]) + "\n")
    print(f"{CONSTRAINTS.relative_to(PROJECT)}: {len(pins)} versions; {notes[0].lstrip('# ')}")
    return 0


def download(extra: str, constraints: Path, folder: Path) -> tuple[int, int]:
    """Return how many MB an extra downloads with PyTorch's CPU build and with its CUDA build."""
    lock = folder / f"pylock.{extra}.toml"
    resolve((extra,), PYTHONS[0], constraints, "--format=pylock.toml", f"--output-file={lock}")
    with lock.open("rb") as file:
        packages = tomllib.load(file)["packages"]
    sizes = {
        package["name"]: max(
            archive["size"] for archive in package.get("wheels") or [package["sdist"]]
        )
        for package in packages
        if "directory" not in package
    }
    total = sum(sizes.values()) / 1e6
    cuda = sum(size for name, size in sizes.items() if CUDA.fullmatch(name)) / 1e6
    with_cpu = total - cuda + CPU_TORCH if "torch" in sizes else total
    return round(with_cpu), round(total)


def resolve(
    extras: tuple[str, ...], python: str, constraints: Path | None = None, *arguments: str
) -> str:
    """Return the versions that pip would install for some extras, a `name==version` per line."""
    command = [
        str(Path(sys.executable).with_name("uv")),
        *("pip", "compile", "--quiet", "--no-annotate", "--no-header"),
        *(f"--extra={extra}" for extra in extras),
        *(f"--constraint={constraints}" for _ in [constraints] if constraints),
        *(f"--python-version={python}", f"--python-platform={PLATFORM}", "pyproject.toml"),
        *arguments,
    ]
    done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
