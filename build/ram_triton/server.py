"""A real tritonserver on this machine's CPU, from the nvidia-pytriton wheel."""

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TextIO

from ram_triton.check_system import find_libpython
from ram_triton.errors import ServerError
from ram_triton.files import short
from ram_triton.repository.layout import BACKENDS

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 600.0  # seconds: compiling a full-size model takes a minute on two cores
STOP_TIMEOUT = 30.0  # seconds
POLL_INTERVAL = 0.1  # seconds
PROGRESS_INTERVAL = 10.0  # seconds between two lines on a start that takes long
ZOMBIE_TIME = 10.0  # seconds: the server collects a Python model that ended in order at once
STUB_NAME = "triton_python_b"  # of a Python model's process, as the kernel cuts it
KEPT_LINES = 200
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")  # what the Python backend's stub takes as a path
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass(frozen=True)
class Ports:
    """The TCP ports of a server."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> "Ports":
        """Three ports that nobody listens on just now."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for listener in sockets:
                listener.bind((LOOPBACK, 0))
            return cls(*(listener.getsockname()[1] for listener in sockets))

    def taken(self) -> list[int]:
        """Those of the ports that somebody listens on already."""
        return [number for number in vars(self).values() if _is_taken(number)]

    def reserve(self) -> contextlib.ExitStack:
        """Keep other servers of ours off these ports until the result is closed.

        Tritonserver listens only after it has loaded its models. Until then a second server would
        take the first one's answers for its own.

        Raises:
            ServerError: somebody listens on a port, or has reserved it.
        """
        with contextlib.ExitStack() as stack:
            for kind, number in vars(self).items():
                name = stack.enter_context(socket.socket(socket.AF_UNIX))
                try:
                    name.bind(f"\0ram-triton-port-{number}")  # the kernel frees it with the process
                    taken = _is_taken(number)
                except OSError:
                    taken = True
                if taken:
                    raise ServerError(
                        f"port {number} is taken: stop what listens there, or choose another by "
                        f"--{kind}-port (make: {kind.upper()}_PORT=)"
                    )
            return stack.pop_all()


@dataclass
class TritonServer:
    """Runs tritonserver on loopback with the CPU profile; a context manager.

    Attributes:
        repository: the model repository.
        ports: where to listen.
        log: called with each line that the server logs.
        log_file: where these lines are kept; its folder is created.
        progress: called with a line on the start every 10 s.
        arguments: further arguments of tritonserver.
    """

    repository: Path
    ports: Ports = field(default_factory=Ports.free)
    log: Callable[[str], None] = lambda line: None
    log_file: Path | None = None
    progress: Callable[[str], None] = lambda line: None
    arguments: tuple[str, ...] = ()

    @property
    def http(self) -> str:
        """Address of the HTTP endpoint, `host:port`."""
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def grpc(self) -> str:
        """Address of the gRPC endpoint, `host:port`."""
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def metrics(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def process_group(self) -> int:
        """Id of the process group that holds the server and its Python models."""
        return self._process.pid

    @property
    def regions(self) -> list[Path]:
        """The shared memory of its Python models that is there now, another server's aside."""
        return sorted(Path("/dev/shm").glob(f"{self._region_prefix}*"))

    def __enter__(self) -> "TritonServer":
        """Start, and wait until all models are ready.

        Raises:
            ServerError: a port is taken, a model cannot be loaded, or it takes too long.
        """
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def models(self) -> list[str]:
        """Names of the repository's models."""
        return sorted(config.parent.name for config in self.repository.glob("*/config.pbtxt"))

    def start(self) -> None:
        """Start the process; `wait_until_ready` returns when it can be asked.

        Raises:
            ServerError: a port is taken, or the package that has the server is missing.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ports.reserve())
            directory = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="ram-triton-", dir=_plain_folder())
                )
            )
            self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
            self._model_of_stub: dict[int, str] = {}
            self._loaded: set[str] = set()
            self._loading: set[str] = set()
            self._models = _plain_path(self.repository.resolve(), directory)
            # Two servers, or one that was killed and its successor, must not share memory regions.
            self._region_prefix = f"{directory.name}-"
            command = self._command(assemble_backends(directory / "backends"))
            file = self.log_file and stack.enter_context(_open_log(self.log_file))
            self._process = subprocess.Popen(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the server in order
                preexec_fn=_stop_with_parent,
            )
            self._resources = stack.pop_all()
        self._reader = Thread(target=self._read_log, args=(file,), daemon=True)
        self._reader.start()

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until every model is ready.

        Raises:
            ServerError: the server or a Python model ended by itself, or `timeout` seconds have
                passed.
        """
        start = time.monotonic()
        last_line = start
        dead_since: dict[int, float] = {}
        while not self._is_ready():
            now = time.monotonic()
            if self._process.poll() is not None:
                self._reader.join()
                raise self._error(f"tritonserver did not start: {self._reason()}")
            dead_since = {stub: dead_since.get(stub, now) for stub in self._dead_stubs()}
            for stub, since in dead_since.items():
                if now - since > ZOMBIE_TIME:
                    # One that died before it was looked at is known by what is missing.
                    missing = self._loading - self._loaded - set(self._model_of_stub.values())
                    names = " or ".join(sorted(missing)) or "a Python model"
                    model = self._model_of_stub.get(stub, names)
                    raise self._error(f"tritonserver did not start: the process of {model} died")
            if now - start > timeout:
                raise self._error(f"tritonserver was not ready after {timeout:.0f} s")
            if now - last_line >= PROGRESS_INTERVAL:
                last_line = now
                self.progress(
                    f"still starting, {now - start:.0f} s: {len(self._loaded)} of "
                    f"{len(self.models())} models are loaded{self._where_the_log_is()}"
                )
            time.sleep(POLL_INTERVAL)

    def wait(self) -> None:
        """Wait until the server ends by itself, which it does only on an error.

        Raises:
            ServerError: it ended.
        """
        self._process.wait()
        self._reader.join()
        raise self._error(
            f"tritonserver ended with status {self._process.returncode}: {self._reason()}"
        )

    def stop(self) -> None:
        """Let running requests end, then end the server and all processes that it started.

        A second Ctrl-C meanwhile ends them at once.
        """
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_TIMEOUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join()
            self._resources.close()

    def _command(self, backends: Path) -> list[str]:
        server = _wheel() / "tritonserver" / "bin" / "tritonserver"
        return [
            str(server),
            f"--model-repository={self._models}",
            "--model-config-name=cpu",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._region_prefix}",
            *(f"--{kind}-address={LOOPBACK}" for kind in ("http", "metrics")),
            f"--grpc-address={LOOPBACK}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={STOP_TIMEOUT / 2:.0f}",
            *self.arguments,
        ]

    def _read_log(self, file: TextIO | None) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                line = line.rstrip().replace(str(self._models), str(self.repository))
                self._last_lines.append(line)
                if match := re.search(r'"loading: (\w+):', line):
                    self._loading.add(match[1])
                if match := re.search(r"successfully loaded '(\w+)'", line):
                    self._loaded.add(match[1])
                if file:
                    print(line, file=file, flush=True)
                self.log(line)

    def _is_ready(self) -> bool:
        url = f"http://{self.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _dead_stubs(self) -> list[int]:
        """Ids of the Python models' processes that ended and that the server has not noticed."""
        dead = []
        for children in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # a thread or a child that has just gone
                for child in children.read_text().split():
                    process = Path("/proc", child)
                    if model := re.search(
                        rb"/(\w+)/1/model\.\w+", (process / "cmdline").read_bytes()
                    ):
                        self._model_of_stub[int(child)] = model[1].decode()
                    if f"({STUB_NAME}) Z " in (process / "stat").read_text():
                        dead.append(int(child))
        return dead

    def _reason(self) -> str:
        """The first line of the log that names the model that failed, or else the log's end."""
        for line in self._last_lines:
            if "failed to load" in line and line.startswith("E"):
                return line.split("] ", 1)[-1].strip('"').split("\\n")[0]
        return " ".join(list(self._last_lines)[-1:]) or "its log is empty"

    def _error(self, text: str) -> ServerError:
        return ServerError(text + self._where_the_log_is())

    def _where_the_log_is(self) -> str:
        return f"; log: {short(self.log_file)}" if self.log_file else ""


def assemble_backends(directory: Path) -> Path:
    """Copy together a backend directory: the wheel's Python backend and our stand-ins.

    Copies, because Triton refuses links that lead out of a backend's folder.

    Returns:
        What `--backend-directory` takes.
    """
    wheel = _wheel() / "tritonserver"
    shutil.copytree(wheel / "backends" / "python", directory / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, directory / "python")
    for stand_in in BACKENDS.iterdir():
        ignored = shutil.ignore_patterns("__pycache__")  # another process may be writing there
        shutil.copytree(stand_in, directory / stand_in.name, ignore=ignored)
    return directory


def _plain_path(path: Path, directory: Path) -> Path:
    """Return a path that the Python backend takes: the same, or a link to it in `directory`.

    The backend's stub is started by a shell: a space or a quote in its arguments makes it die.
    """
    if PLAIN_PATH.fullmatch(str(path)):
        return path
    link = directory / "models"
    link.symlink_to(path)
    return link


def _plain_folder() -> str | None:
    """Return where temporary folders go that the Python backend takes; None is the usual place."""
    return None if PLAIN_PATH.fullmatch(tempfile.gettempdir()) else "/tmp"


def _open_log(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", errors="replace")


def _environment() -> dict[str, str]:
    """The server's environment: its libraries, and this interpreter's packages for its models."""
    libpython = find_libpython()
    if libpython is None:
        raise ServerError("libpython is missing: 'make setup' names the command that installs it")
    libraries = [str(_wheel().parent / "nvidia_pytriton.libs"), str(Path(libpython).parent)]
    if inherited := os.environ.get("LD_LIBRARY_PATH"):
        libraries.append(inherited)
    return os.environ | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        # The stub takes its packages from the python3 that comes first here, and not PYTHONPATH.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }


def _wheel() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerError("the package nvidia-pytriton is missing: run 'make setup'")
    return Path(spec.origin).parent


def _stop_with_parent() -> None:
    """Have the kernel stop the server, in order, when this process is killed (Linux's prctl)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
