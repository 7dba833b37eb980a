"""A real tritonserver on this machine's CPU, from the nvidia-pytriton wheel."""

import contextlib
import ctypes
import importlib.util
import os
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

from ram_triton.check_system import find_libpython
from ram_triton.errors import ServerError
from ram_triton.repository.layout import PROJECT

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 600.0  # seconds: compiling a full-size model takes a minute on two cores
STOP_TIMEOUT = 30.0  # seconds
POLL_INTERVAL = 0.1  # seconds
KEPT_LINES = 200
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
STAND_INS = PROJECT / "build" / "backends"  # our OpenVINO backend


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
        numbers = (self.http, self.grpc, self.metrics)
        return [number for number in numbers if _is_taken(number)]


@dataclass
class TritonServer:
    """Runs tritonserver on loopback with the CPU profile; a context manager.

    Attributes:
        repository: the model repository.
        ports: where to listen.
        log: called with each line that the server logs.
        arguments: further arguments of tritonserver.
    """

    repository: Path
    ports: Ports = field(default_factory=Ports.free)
    log: Callable[[str], None] = lambda line: None
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

    def start(self) -> None:
        """Start the process; `wait_until_ready` tells when it can be asked."""
        if taken := self.ports.taken():
            raise ServerError(
                f"port {taken[0]} is taken: stop what listens there, or choose another"
            )
        self._directory = tempfile.TemporaryDirectory(prefix="ram-triton-")
        # Two servers, or one that was killed and its successor, must not share memory regions.
        self._region_prefix = f"{Path(self._directory.name).name}-"
        backends = assemble_backends(Path(self._directory.name))
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = subprocess.Popen(
            self._command(backends),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone; we then stop the server in order
            preexec_fn=_stop_with_parent,
        )
        self._reader = Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until every model is ready.

        Raises:
            ServerError: the server ended by itself, or `timeout` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if self._process.poll() is not None:
                self._reader.join()
                raise ServerError(f"tritonserver did not start: {self._reason()}")
            if time.monotonic() > deadline:
                raise ServerError(f"tritonserver was not ready after {timeout:.0f} s")
            time.sleep(POLL_INTERVAL)

    def wait(self) -> None:
        """Wait until the server ends by itself, which it does only on an error."""
        self._process.wait()
        self._reader.join()
        raise ServerError(f"tritonserver ended with status {self._process.returncode}")

    def stop(self) -> None:
        """Let running requests end, then end the server and all processes that it started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._directory.cleanup()

    def _command(self, backends: Path) -> list[str]:
        server = _wheel() / "tritonserver" / "bin" / "tritonserver"
        return [
            str(server),
            f"--model-repository={self.repository.resolve()}",
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

    def _read_log(self) -> None:
        for line in self._process.stdout:
            self._last_lines.append(line.rstrip())
            self.log(line.rstrip())

    def _is_ready(self) -> bool:
        url = f"http://{self.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _reason(self) -> str:
        """The first line of the log that says which model failed, or else how the log ends."""
        for line in self._last_lines:
            if "failed to load" in line and line.startswith("E"):
                return line.split("] ", 1)[-1].strip('"').split("\\n")[0]
        return " ".join(list(self._last_lines)[-1:]) or "it said nothing"


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
    for stand_in in STAND_INS.iterdir():
        shutil.copytree(stand_in, directory / stand_in.name)
    return directory


def _environment() -> dict[str, str]:
    """The server's environment: its libraries, and this interpreter's packages for its models."""
    libpython = find_libpython()
    if libpython is None:
        raise ServerError("libpython is missing: run 'make setup', which says how to install it")
    libraries = [str(_wheel().parent / "nvidia_pytriton.libs"), str(Path(libpython).parent)]
    if inherited := os.environ.get("LD_LIBRARY_PATH"):
        libraries.append(inherited)
    return os.environ | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        # The stub takes its packages from the python3 that stands first here, and not PYTHONPATH.
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
