"""A tritonserver as a process: started, waited for, stopped, with nothing left behind."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from ram_triton.errors import ServerError
from ram_triton.files import short
from ram_triton.processes import ZOMBIE, children, state, stubs_among
from ram_triton.repository.layout import CPU
from ram_triton.server import access
from ram_triton.server.folder import VARIABLE, ServerFolder
from ram_triton.server.installation import Installation
from ram_triton.server.log import LineWriter, LogReader, StartLog
from ram_triton.server.ports import LOOPBACK, TRITONS, Ports

START_TIMEOUT = 600.0  # seconds: compiling a full-size model takes a minute on two cores
STOP_TIMEOUT = 30.0  # seconds
POLL_INTERVAL = 0.1  # seconds
PROGRESS_INTERVAL = 10.0  # seconds between two lines on a start that takes long
ZOMBIE_TIME = 10.0  # seconds: the server collects a Python model that ended in order at once
# The kernel stops the server, in order, when this process is killed. By util-linux, and not between
# fork and exec: a fork runs gRPC's handlers, which can abort it in a process that uses gRPC.
STOPPED_WITH_PARENT = ("setpriv", "--pdeathsig", "INT", "--")


@dataclass
class TritonServer:
    """Runs tritonserver, by default on loopback with the CPU profile; a context manager.

    Attributes:
        repository: the model repository.
        ports: where to listen.
        log: called with each line that the server logs.
        log_file: where these lines are kept; its folder is created.
        progress: called with a line on the start every 10 s.
        arguments: further arguments of tritonserver.
        address: where to listen.
        profile: CPU, or GPU where the installation has TensorRT.
        key: what the restricted APIs ask for.
        environment: further variables.
    """

    repository: Path
    ports: Ports = field(default_factory=Ports.free)
    log: Callable[[str], None] = lambda line: None
    log_file: Path | None = None
    progress: Callable[[str], None] = lambda line: None
    arguments: tuple[str, ...] = ()
    address: str = LOOPBACK
    profile: str = CPU
    key: str = field(default_factory=access.new_key, repr=False)
    environment: dict[str, str] = field(default_factory=dict)
    _file: LineWriter | None = field(default=None, init=False, repr=False)
    _dropped: int = field(default=0, init=False, repr=False)
    _is_killed: bool = field(default=False, init=False, repr=False)

    @property
    def http(self) -> str:
        """Address of the HTTP endpoint on this machine, `host:port`."""
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def grpc(self) -> str:
        """Address of the gRPC endpoint on this machine, `host:port`."""
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
    def folder(self) -> Path:
        """Its temporary folder."""
        return self._folder.path

    @property
    def regions(self) -> list[Path]:
        """The shared memory of its Python models that is there now, another server's aside."""
        return self._folder.regions

    @property
    def ended(self) -> str | None:
        """How the process ended by itself, None if it runs."""
        status = self._process.poll()
        if status is None:
            return None
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        return f"tritonserver ended with {how}"

    @property
    def lines_dropped(self) -> int:
        """The number of lines of its log that were not kept, of all its starts."""
        in_file = self._file.dropped if self._file else 0
        return self._dropped + self._log_reader.dropped + in_file

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
            ServerError: a port is taken, or the server's package or setpriv is missing.
        """
        installation = Installation.find()
        if shutil.which(STOPPED_WITH_PARENT[0]) is None:
            raise ServerError(f"{STOPPED_WITH_PARENT[0]} is missing: install util-linux")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ports.reserve())
            self._folder = ServerFolder()
            stack.callback(self._folder.remove)
            self._folder.make()
            self._start_log = StartLog()
            self._model_of_stub: dict[int, str] = {}
            environment = {VARIABLE: str(self._folder.path)} | self.environment
            self._models = self._folder.plain(self.repository.resolve())
            command = self._command(installation)
            if self.log_file and self._file is None:  # a later start of the same goes on in it
                self._file = LineWriter.open(self.log_file)
            self._process = subprocess.Popen(
                [*STOPPED_WITH_PARENT, *command],
                env=os.environ | installation.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the server in order
            )
            self._is_killed = False
            sinks: list[Callable[[str], None]] = [self._start_log, self.log]
            sinks += [self._file] if self._file else []
            self._log_reader = LogReader(
                sinks, lambda line: line.replace(str(self._models), str(self.repository))
            )
            assert self._process.stdout is not None
            self._reader = Thread(
                target=self._log_reader.read, args=(self._process.stdout,), daemon=True
            )
            self._reader.start()
            self._resources = stack.pop_all()  # an interruption before this removes all of it

    def wait_until_ready(
        self, timeout: float = START_TIMEOUT, stopped: Event | None = None
    ) -> bool:
        """Wait until every model is ready; returns False if `stopped` is set before.

        Raises:
            ServerError: the server or a Python model ended by itself, or `timeout` seconds have
                passed.
        """
        stopped = stopped or Event()
        start = time.monotonic()
        last_line = start
        dead_since: dict[int, float] = {}
        while not self._is_ready():
            now = time.monotonic()
            has_ended = self._process.poll() is not None
            if has_ended:
                self._kill_group()
                self._reader.join(STOP_TIMEOUT)
            else:
                dead_since = {stub: dead_since.get(stub, now) for stub in self._dead_stubs()}
            reason = self._start_log.reason() if has_ended else None
            for stub, since in dead_since.items():  # which makes the server wait for ever, or abort
                if now - since > ZOMBIE_TIME or (has_ended and reason is None):
                    # One that died before it was looked at is known by what is missing.
                    missing = self._start_log.missing() - set(self._model_of_stub.values())
                    names = " or ".join(sorted(missing)) or "a Python model"
                    model = self._model_of_stub.get(stub, names)
                    raise self._error(f"tritonserver did not start: the process of {model} died")
            if has_ended:
                said = reason or self._start_log.last_line()
                raise self._error(f"tritonserver did not start: {said}")
            if now - start > timeout:
                raise self._error(f"tritonserver was not ready after {timeout:.0f} s")
            if now - last_line >= PROGRESS_INTERVAL:
                last_line = now
                self.progress(
                    f"still starting, {now - start:.0f} s: {len(self._start_log.loaded)} of "
                    f"{len(self.models())} models are loaded{self._where_the_log_is()}"
                )
            if stopped.wait(POLL_INTERVAL):
                return False
        return True

    def stop(self) -> None:
        """End the server and its log: whoever started it has had all answers.

        Triton would end the Python models' processes one after the other, and wait a second for
        each.
        """
        self.kill()
        if self._file:
            self._file.close()
            self._dropped, self._file = self.lines_dropped, None

    def kill(self) -> None:
        """End the server and all that it started at once, and remove what it leaves."""
        if self._is_killed:  # its id may be another's by now
            return
        self._kill_group()
        self._process.wait()
        self._is_killed = True
        self._resources.close()
        self._reader.join(STOP_TIMEOUT)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _command(self, installation: Installation) -> list[str]:
        return [
            str(installation.program),
            f"--model-repository={self._models}",
            *installation.options(self.profile, self._folder.path),
            f"--backend-config=python,shm-region-prefix-name={self._folder.region_prefix}",
            *(f"--{kind}-address={self.address}" for kind in TRITONS),
            *(f"--{kind}-port={getattr(self.ports, kind)}" for kind in TRITONS),
            f"--exit-timeout-secs={STOP_TIMEOUT / 2:.0f}",
            *access.restrictions(self.key),
            *access.http_limit(installation.release),
            *self.arguments,
        ]

    def _is_ready(self) -> bool:
        url = f"http://{self.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        # A connection to a free port may meet itself, and then reads what it wrote.
        except (OSError, http.client.HTTPException):
            return False

    def _dead_stubs(self) -> list[int]:
        """Ids of the Python models' processes that ended and that the server has not noticed."""
        running = children(self._process.pid)
        self._model_of_stub |= {stub.id: stub.model for stub in stubs_among(running)}
        return [child for child in running if state(child) == ZOMBIE]

    def _error(self, text: str) -> ServerError:
        return ServerError(text + self._where_the_log_is())

    def _where_the_log_is(self) -> str:
        return f"; log: {short(self.log_file)}" if self.log_file else ""
