"""Check what set-up needs of the system and cannot install itself.

`make` runs this file with whatever Python it finds, before it creates the environment. An old
Python must get a message and not a SyntaxError: no annotations here, no f-strings.
"""

import ctypes
import os
import platform
import sys
import sysconfig

SUPPORTED = ((3, 11), (3, 12))  # docs/troubleshooting.md has the reasons
GLIBC = (2, 35)  # what the wheel of tritonserver is built for
# The supported Python that a release packages, by its VERSION_CODENAME in /etc/os-release.
PACKAGED = {"bookworm": "3.11", "jammy": "3.11", "noble": "3.12"}


def find_libpython():
    # type: () -> str | None
    """Return the shared libpython of this interpreter, which Triton's Python backend loads."""
    name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    for candidate in (os.path.join(sysconfig.get_config_var("LIBDIR") or "/usr/lib", name), name):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


def problem():
    # type: () -> str | None
    """Return one line on what is missing and how to get it, or None if nothing is."""
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info[:2] not in SUPPORTED:
        names = ["{}.{}".format(*supported) for supported in SUPPORTED]
        return "Python {} is needed, this is {}: {}".format(
            " or ".join(names), version, _way_to_python(names)
        )
    if sysconfig.get_platform() != "linux-x86_64":
        return "tritonserver's wheel is built for linux-x86_64, this is {}".format(
            sysconfig.get_platform()
        )
    library, release = platform.libc_ver()
    if library != "glibc" or tuple(map(int, release.split(".")[:2])) < GLIBC:
        return (
            "tritonserver's wheel needs glibc {}.{} or newer, which Debian 12 and Ubuntu 22.04 "
            "have; this is {} {}".format(
                GLIBC[0], GLIBC[1], library or "another C library", release
            )
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return "Python's venv module is incomplete: run 'apt-get install python{}-venv'".format(
            version
        )
    if find_libpython() is None:
        return "libpython{0}.so.1.0 is missing: run 'apt-get install libpython{0}'".format(version)
    return None


def _way_to_python(versions):
    # type: (list[str]) -> str
    """Name the command that uses a supported Python of this machine, or that installs one."""
    for version in versions:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            if os.access(os.path.join(folder, "python" + version), os.X_OK):
                return "run 'make ... PYTHON=python{}'".format(version)
    packaged = PACKAGED.get(_codename())
    if packaged:
        return (
            "run 'apt-get install python{0} python{0}-venv libpython{0}', then "
            "'make ... PYTHON=python{0}'".format(packaged)
        )
    return (
        "run 'PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {0}', or install it in another "
        "way with its shared library, then 'make ... PYTHON=python{0}'".format(versions[-1])
    )


def _codename():
    # type: () -> str
    """Return the release's name, such as "bookworm"; an empty text if it is unknown."""
    try:
        with open("/etc/os-release") as file:
            lines = [line.strip().partition("=") for line in file]
    except OSError:
        return ""
    return {key: value.strip('"') for key, _, value in lines}.get("VERSION_CODENAME", "")


if __name__ == "__main__":
    found = problem()
    if found:
        sys.exit("set-up: " + found)
