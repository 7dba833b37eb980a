"""Check what set-up needs of the system and cannot install itself.

Run by `make` before it creates the environment, with any Python; exits with one line that names
what is missing and the command that installs it.
"""

import ctypes
import sys
import sysconfig
from pathlib import Path

SUPPORTED = ((3, 11), (3, 12))


def find_libpython() -> str | None:
    """Return the shared libpython of this interpreter, which Triton's Python backend loads."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for candidate in (Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / name, name):
        try:
            ctypes.CDLL(str(candidate))
        except OSError:
            continue
        return str(candidate)
    return None


def problem() -> str | None:
    """Say in one line what is missing and how to get it, or None where nothing is."""
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info[:2] not in SUPPORTED:
        return (
            f"Python 3.11 or 3.12 is needed, this is {version}: run 'apt-get install python3.11 "
            "python3.11-venv libpython3.11', then 'make PYTHON=python3.11'"
        )
    if sys.platform != "linux" or sysconfig.get_platform() != "linux-x86_64":
        return f"tritonserver's wheel is built for linux-x86_64, this is {sysconfig.get_platform()}"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return f"Python's venv module is incomplete: run 'apt-get install python{version}-venv'"
    if find_libpython() is None:
        return f"libpython{version}.so.1.0 is missing: run 'apt-get install libpython{version}'"
    return None


if __name__ == "__main__":
    found = problem()
    if found:
        sys.exit(f"set-up: {found}")
