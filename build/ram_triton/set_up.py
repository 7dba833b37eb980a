"""Install an extra of pyproject.toml into .venv, with one line of progress.

`make` runs this file with the system's Python, after check_system.py. It imports the standard
library alone, and can be interrupted: run again, it resumes with what pip has in its cache.
"""

import argparse
import contextlib
import fcntl
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = PROJECT / ".venv"
PIP = ENVIRONMENT / "bin" / "pip"
LOG = ENVIRONMENT / "set-up.log"
LOCK = PROJECT / "runs" / "set-up.lock"  # not in .venv, which may be created anew
PYPROJECT = PROJECT / "pyproject.toml"
CONSTRAINTS = PROJECT / "build" / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_TIMEOUT = 10.0  # seconds
GPU_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/dxg")
UNPACKED = 3.2  # times the size of what is downloaded, measured with the extras `cpu` and `test`
SLOW_LINE = 5.0  # MB/s of a usual connection, for the estimate of time
TERMINAL_INTERVAL, PIPE_INTERVAL = 0.5, 10.0  # seconds between two states of progress
# What pip's log says if there is nothing wrong with the packages, and what to do about it.
REASONS = {
    r"No space left on device": "the disk is full",
    r"CERTIFICATE_VERIFY_FAILED": "the package index has a certificate that this system does not "
    "trust: set PIP_CERT to the file of your network's certificate authority",
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable|"
    r"Failed to establish a new connection|Connection refused|ConnectTimeout|NameResolutionError|"
    r"\(from versions: none\)": "pip cannot reach its package index: connect to a network, "
    "or name an index by PIP_INDEX_URL",
    r"Read timed out|Connection broken|IncompleteRead|do not match the hashes": "a download was "
    "cut off: run it again, it resumes",
}


class SetUpError(Exception):
    """Set-up cannot go on; the message is one line."""


def main() -> int:
    """Read the arguments and install; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("extra", help="an extra of pyproject.toml")
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="PyTorch's build; auto: cuda if there is an NVIDIA GPU, else cpu",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with locked():
            if options.torch != "auto" or not is_installed(options.extra):
                install(options.extra, options.torch)
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted, run it again: it resumes", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Wait for another set-up of this project to end, and have others wait.

    Raises:
        SetUpError: the lock's file cannot be written.
    """
    try:
        LOCK.parent.mkdir(exist_ok=True)
        file = LOCK.open("a")
    except OSError as error:
        raise SetUpError(f"{LOCK}: cannot be written ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this project to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_installed(extra: str) -> bool:
    """Return whether an extra was installed after the last change of what it consists of."""
    stamp = ENVIRONMENT / f".installed-{extra}"
    return stamp.exists() and all(
        stamp.stat().st_mtime_ns >= pins.stat().st_mtime_ns for pins in (PYPROJECT, CONSTRAINTS)
    )


def install(extra: str, torch: str) -> None:
    """Install an extra, and mark it and those that it includes as installed.

    Raises:
        SetUpError: it cannot be installed.
    """
    extras = included(extra)
    needs_torch = any(requirement("torch", name) for name in extras)
    if not needs_torch:
        build = "cpu"
    elif torch == "auto":
        build = "cuda" if any(Path(sign).exists() for sign in GPU_SIGNS) else "cpu"
    else:
        build = torch
    index = needs_torch and build == "cpu" and can_be_reached(f"{CPU_INDEX}/torch/")
    announce(extra, with_cuda=build == "cuda")
    if not PIP.exists():  # an environment without pip is one whose creation was interrupted
        say("creating .venv")
        venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    if needs_torch:
        install_torch(build, index, explicit=torch != "auto")
    pip("-c", str(CONSTRAINTS), "-e", f".[{extra}]")
    for name in extras:
        (ENVIRONMENT / f".installed-{name}").touch()


def included(extra: str) -> list[str]:
    """Return an extra and all that it includes, as in `ram-triton[build]`."""
    extras = _extras()
    if extra not in extras:
        raise SetUpError(f"pyproject.toml has no extra '{extra}'")
    found = [extra]
    for name in found:  # which grows
        for line in extras[name]:
            if match := re.match(r"ram-triton\[(.*)\]", line):
                found += [one for one in match[1].split(",") if one not in found]
    return found


def requirement(package: str, extra: str) -> str | None:
    """Return an extra's own requirement of a package, such as `torch==2.13.0`, or None."""
    return next((line for line in _extras()[extra] if line.startswith(f"{package}==")), None)


def can_be_reached(url: str) -> bool:
    """Return whether a page can be fetched now."""
    try:
        with urllib.request.urlopen(url, timeout=INDEX_TIMEOUT):
            return True
    except OSError:
        return False


def announce(extra: str, with_cuda: bool) -> None:
    """Print how much will be downloaded at most, and what it takes.

    Raises:
        SetUpError: the disk has no place for it.
    """
    sizes = dict(re.findall(r"^# download: (\w+) (\d+) MB", CONSTRAINTS.read_text(), re.M))
    download = int(sizes[extra]) + (int(sizes["cuda"]) if with_cuda else 0)
    disk = download * UNPACKED / 1000
    free = shutil.disk_usage(PROJECT).free / 1e9
    minutes = max(1, round(download / SLOW_LINE / 60))
    say(
        f"'{extra}' downloads up to {download:,} MB, once, and takes {disk:.1f} GB in .venv: "
        f"{minutes} to {3 * minutes} minutes; pip's log: {LOG.relative_to(PROJECT)}"
    )
    if free < disk and not PIP.exists():
        raise SetUpError(f"{disk:.1f} GB are needed on the disk of {PROJECT}, {free:.1f} are free")


def install_torch(build: str, index: bool, explicit: bool) -> None:
    """Install PyTorch first if its build matters, without what it requires.

    Args:
        build: `cpu` or `cuda`.
        index: whether PyTorch's index of CPU builds can be reached.
        explicit: whether the user has chosen the build.
    """
    installed = next(ENVIRONMENT.glob("lib/python*/site-packages/torch-*.dist-info"), None)
    found = installed.name.removesuffix(".dist-info").partition("-")[2] if installed else None
    torch = requirement("torch", "build")
    vision = re.search(r"^torchvision==\S+", CONSTRAINTS.read_text(), re.M)
    assert torch and vision
    if build == "cpu" and not (found and found.endswith("+cpu")):
        if index:
            pip("--no-deps", "--index-url", CPU_INDEX, f"{torch}+cpu", vision[0])
        elif explicit:
            pip("--no-deps", f"{torch}+cpu")
        elif not found:
            say(
                f"{CPU_INDEX} cannot be reached: if pip finds no CPU build of PyTorch, it installs "
                "the CUDA build, about 2,700 MB more"
            )
    elif build == "cuda" and found and found.endswith("+cpu") and explicit:
        pip("--no-deps", "--force-reinstall", torch)


def pip(*arguments: str) -> None:
    """Run `pip install`, its output into the log, and show its progress.

    Raises:
        SetUpError: it failed; the message has the reason and the log's path.
    """
    command = [str(PIP), "install", "--disable-pip-version-check", "--progress-bar=off", *arguments]
    with LOG.open("a", encoding="utf-8") as log:
        print("$", *command, file=log, flush=True)
        start = LOG.stat().st_size
        with subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            progress = Progress()
            assert process.stdout is not None
            try:
                with progress.shown():
                    for line in process.stdout:
                        log.write(line)
                        log.flush()
                        progress.follow(line)
            except KeyboardInterrupt:
                process.terminate()
                raise
    if process.returncode:
        raise SetUpError(f"{reason(start)} (pip's log: {LOG.relative_to(PROJECT)})")


class Progress:
    """One line on what pip does: rewritten on a terminal, repeated every 10 s elsewhere."""

    def __init__(self) -> None:
        self.packages = 0
        self.megabytes = 0.0
        self.doing = "asking the package index"
        self.total = 0
        self._start = time.monotonic()
        self._end = threading.Event()

    def follow(self, line: str) -> None:
        """Take up a line of pip's output."""
        if line.startswith("Collecting "):
            self.packages += 1
        elif match := re.match(
            r"\s+(?:Downloading|Using cached) (\S+) \(([\d.]+) (kB|MB|GB)\)", line
        ):
            size = float(match[2]) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3}[match[3]]
            self.megabytes += size
            name = "-".join(Path(match[1]).name.split("-")[:2])
            self.doing = f"fetching {name} ({size:.0f} MB)" if size >= 1 else f"fetching {name}"
        elif line.startswith("Installing collected packages: "):
            self._before = self._installed()
            self.total = line.count(",") + 1  # last: the thread that shows it reads both

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line until the end of the block."""
        thread = threading.Thread(target=self._show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _show(self) -> None:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns - 1
        while not self._end.wait(TERMINAL_INTERVAL if terminal else PIPE_INTERVAL):
            line = str(self)
            print(f"\r{line[:width]:{width}}" if terminal else line, end="" if terminal else "\n")
            sys.stdout.flush()
        if terminal:
            print(f"\r{'':{width}}\r", end="", flush=True)

    def __str__(self) -> str:
        doing = self.doing
        if self.total:
            doing = f"installing {self._installed() - self._before} of {self.total}"
        return (
            f"set-up: {time.monotonic() - self._start:.0f} s, {self.packages} packages, "
            f"{self.megabytes:.0f} MB, {doing}"
        )

    @staticmethod
    def _installed() -> int:
        return sum(1 for _ in ENVIRONMENT.glob("lib/python*/site-packages/*.dist-info"))


def reason(start: int) -> str:
    """Return why pip failed, by what it logged from a place in the log on."""
    text = LOG.read_bytes()[start:].decode(errors="replace")
    for pattern, meaning in REASONS.items():
        if re.search(pattern, text):
            return meaning
    errors = re.findall(r"^\s*(?:ERROR|error): (.*)", text, re.M)
    return errors[-1] if errors else "pip failed"


def say(text: str) -> None:
    """Print a line of set-up's own at once."""
    print(f"set-up: {text}", flush=True)


def _extras() -> dict[str, list[str]]:
    with PYPROJECT.open("rb") as file:
        extras: dict[str, list[str]] = tomllib.load(file)["project"]["optional-dependencies"]
    return extras


if __name__ == "__main__":
    sys.exit(main())
