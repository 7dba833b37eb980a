"""Where tritonserver is (the nvidia-pytriton wheel's, or the container's own), and its release."""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ram_triton.check_system import find_libpython
from ram_triton.errors import ServerError
from ram_triton.repository.layout import BACKENDS, CPU

Release = tuple[int, int]  # year and month, such as (26, 7)

WHEEL = "24.10"  # of nvidia-pytriton 0.7.0
SAFE: Release = (26, 7)  # the oldest that a network may reach; SECURITY.md has what older ones lack
OLDEST, NEWEST = "{}.{:02}".format(*SAFE), "26.11"  # the same; that the container has
VARIABLE = "NVIDIA_TRITON_SERVER_VERSION"  # set in NVIDIA's images

# Which releases have known flaws: those older than the key.
FLAWS = {
    OLDEST: "known vulnerabilities of severity 9.8 (SECURITY.md)",
    "26.08": "a batcher that can stall under load (server#8870)",
    NEWEST: "a use-after-free in the dynamic batcher",
}


def image_release() -> str | None:
    """Return the release of NVIDIA's image in which this runs, such as `26.11`; None elsewhere."""
    return os.environ.get(VARIABLE) or None


def parse(release: str | None) -> Release | None:
    """Return a release's year and month; None if that is unknown, or not a release."""
    year, _, month = (release or "").partition(".")
    return (int(year), int(month[:2])) if year.isdecimal() and month[:2].isdecimal() else None


def flaws(release: str) -> list[str]:
    """Return what a release is known to have, in words, the gravest first.

    Args:
        release: as NVIDIA counts them: year and month, `26.07`; what is not one counts as old.
    """

    def number(release: str) -> Release:
        return parse(release) or (0, 0)

    return [flaw for fixed, flaw in FLAWS.items() if number(release) < number(fixed)]


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine.

    Attributes:
        program: its path.
        backends: the folder of its backends.
        release: year and month, such as (24, 10); None if it is unknown.
        environment: variables that it needs beside this process's own.
    """

    program: Path
    backends: Path
    release: Release | None
    environment: dict[str, str]

    @classmethod
    def find(cls) -> "Installation":
        """Return the wheel's, or else the one on PATH.

        Raises:
            ServerError: there is neither, or the wheel's lacks libpython.
        """
        spec = importlib.util.find_spec("pytriton")
        if spec is not None and spec.origin is not None:
            return cls._wheel(Path(spec.origin).parent)
        if program := shutil.which("tritonserver"):
            backends = Path(program).resolve().parents[1] / "backends"
            return cls(Path(program), backends, parse(image_release()), {})
        raise ServerError("the package nvidia-pytriton is missing: run 'make setup'")

    @classmethod
    def _wheel(cls, package: Path) -> "Installation":
        libpython = find_libpython()
        if libpython is None:
            raise ServerError(
                "libpython is missing: 'make setup' names the command that installs it"
            )
        libraries = [str(package.parent / "nvidia_pytriton.libs"), str(Path(libpython).parent)]
        if inherited := os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(inherited)
        environment = {
            "LD_LIBRARY_PATH": ":".join(libraries),
            # The stub takes its packages from the python3 that is first here, not PYTHONPATH.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        }
        server = package / "tritonserver"
        known = parse(WHEEL) if version("nvidia-pytriton") == "0.7.0" else None
        return cls(server / "bin" / "tritonserver", server / "backends", known, environment)

    def options(self, profile: str, folder: Path) -> list[str]:
        """Return the options of tritonserver that choose a profile and its backends.

        Args:
            profile: CPU or GPU.
            folder: where a directory of backends is put together, if the profile needs one.
        """
        if profile != CPU:
            return []
        directory = self.assemble_backends(folder / "backends")
        return ["--model-config-name=cpu", f"--backend-directory={directory}"]

    def assemble_backends(self, directory: Path) -> Path:
        """Copy together a directory of backends: the Python backend and our stand-ins.

        Copies, because Triton refuses links that lead out of a backend's folder.

        Returns:
            What `--backend-directory` takes.
        """
        shutil.copytree(self.backends / "python", directory / "python")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self.backends.parent / "python_backend_stubs" / python / "triton_python_backend_stub"
        if stub.is_file():  # the wheel's; a container's backend has its own
            shutil.copy(stub, directory / "python")
        for stand_in in BACKENDS.iterdir():
            ignored = shutil.ignore_patterns("__pycache__")  # another process may be writing there
            shutil.copytree(stand_in, directory / stand_in.name, ignore=ignored)
        return directory
