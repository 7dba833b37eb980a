"""Starts a server, watches it, brings it back by itself, and ends it in order."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ram_triton.errors import ServerError
from ram_triton.repository.layout import PREPROCESSING, VOCABULARY
from ram_triton.server.api import RAM, RAM_OPEN, RAM_PIXELS, Api, Outcome
from ram_triton.server.drain import drain
from ram_triton.server.health import Health
from ram_triton.server.process import STOP_TIMEOUT, TritonServer
from ram_triton.server.watch import CANARY_INTERVAL, LONGEST, Canary, Watch
from ram_triton.signals import Stopping

EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
NO_CONTROL = ("--model-control-mode=none",)

Value = TypeVar("Value", str, int)


@dataclass(frozen=True)
class Policy:
    """When to give up, and for how long to wait.

    Attributes:
        attempts: restarts in a row before giving up.
        healthy: seconds without a fault that make it another row.
        longest_pause: seconds before a restart; the first is at once, each pause twice the last.
        grace: seconds that running requests have to end.
        canary: seconds between two pictures.
        can_reload: whether a model whose process died is loaded again alone. If not, the server's
            API for it is off, and the whole server starts again.
    """

    attempts: int = 5
    healthy: float = 60.0
    longest_pause: float = 30.0
    grace: float = STOP_TIMEOUT
    canary: float = CANARY_INTERVAL
    can_reload: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The options of tritonserver that this needs."""
        return EXPLICIT if self.can_reload else NO_CONTROL


@dataclass
class Supervisor:
    """Keeps a server whole until it is asked to stop.

    Attributes:
        server: not started; its arguments include the policy's options.
        say: called with each line that an operator should see.
        announce: called once, when the server is ready for the first time.
        stopping: what tells it to stop.
        policy: when to give up.
        health: what is shown to others.
    """

    server: TritonServer
    say: Callable[[str], None]
    announce: Callable[[], None]
    stopping: Stopping
    policy: Policy = field(default_factory=Policy)
    health: Health = field(default_factory=Health)
    _announced: bool = field(default=False, init=False, repr=False)
    _restarted: float = field(default=0.0, init=False, repr=False)

    def run(self) -> None:
        """Serve until it is asked to stop.

        Raises:
            ServerError: the first start failed, or too many restarts in a row.
        """
        if self.stopping.asked.is_set():
            return
        try:
            self.server.start()
            self.health.lines_dropped = lambda: self.server.lines_dropped
            try:
                self.health.serve(self.server.address, self.server.ports.health)
                self._run()
            finally:
                self.health.state = "stopping"
                self.server.kill()
        finally:
            self.health.close()

    def _run(self) -> None:
        failures, ready = 0, self._announce
        while not self.stopping.asked.is_set():
            begin = time.monotonic()
            try:
                if self.health.restarts:
                    self.server.start()
                problem = self._serve_once(ready)
            except (ServerError, OSError) as error:  # a disk or memory may be full for a while
                if not self._announced:
                    raise
                problem = str(error)
            if problem is None:
                return
            ready = self._report
            failures = 1 if time.monotonic() - begin > self.policy.healthy else failures + 1
            self.health.state, self.health.reason = "restarting", problem
            self.server.kill()
            if failures > self.policy.attempts:
                raise ServerError(
                    f"{problem}: gave up after {self.policy.attempts} restarts in a row, see "
                    "Triton's log"
                )
            pause = min(2.0 ** (failures - 2), self.policy.longest_pause) if failures > 1 else 0.0
            self.say(
                f"{problem}: starting the server again"
                + (f" in {pause:.0f} s" if pause else "")
                + f" ({failures} of {self.policy.attempts} in a row)"
            )
            if self.stopping.asked.wait(pause):
                return
            self.health.restarts += 1
            self._restarted = time.monotonic()

    def _serve_once(self, ready: Callable[[], None]) -> str | None:
        """See a started server through; returns what went wrong, None after an end in order."""
        if not self.server.wait_until_ready(stopped=self.stopping.asked):
            return None
        models = self.server.models()
        ensembles = [model for model in (RAM, RAM_OPEN, RAM_PIXELS) if model in models]
        server = self.server
        label = self._read(VOCABULARY, (0, "tag"), str, default="-")
        image_size = self._read(PREPROCESSING, ("image_size",), int, default=0)
        api = Api(server.http, server.metrics, server.key, label, image_size)
        begin = time.monotonic()
        outcome, reason = api.ask(RAM, LONGEST)
        quickest = time.monotonic() - begin
        if outcome in (Outcome.FAILED, Outcome.SILENT) and not server.ended:
            raise ServerError(f"tritonserver is ready, but {RAM} {outcome.value}: {reason}")
        # The steps of ram_pixels are those of ram, but for one that hardly computes.
        asked = [model for model in ensembles if model != RAM_PIXELS]
        canary = Canary(api, asked, quickest, self.policy.canary)
        watch = Watch(server, api, canary, self.health, self.say, self.policy.can_reload)
        self.health.state = "ready"
        ready()
        canary.start()
        try:
            problem = watch.until(self.stopping.asked)
        finally:
            canary.end()
        if problem is None:
            # No signal to Triton: nothing runs any more, and while it ends it would answer new
            # requests by NOT_FOUND.
            self.health.state = "stopping"
            is_over = self.stopping.at_once.is_set
            drain(api, server.folder, ensembles, self.policy.grace, is_over)
        return problem

    def _read(
        self, file: Path, place: Sequence[str | int], kind: Callable[[Any], Value], default: Value
    ) -> Value:
        """Return an entry of a file of the model's; the default if it is missing or damaged."""
        try:
            found = json.loads((self.server.repository / file).read_text(encoding="utf-8"))
            for key in place:
                found = found[key]
            return kind(found)
        except (OSError, ValueError, LookupError, TypeError):
            return default

    def _announce(self) -> None:
        self._announced = True
        self.announce()

    def _report(self) -> None:
        self.say(f"ready again after {time.monotonic() - self._restarted:.1f} s")
