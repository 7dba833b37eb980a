"""Looks after a running server: its process, its Python models' processes, its answers.

A picture is sent now and then, so that a server that has stopped answering is noticed.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread

from ram_triton.errors import ServerError
from ram_triton.processes import STOPPED, Stub, command_line, is_over, state, stubs
from ram_triton.server.api import RAM, Api, Outcome
from ram_triton.server.folder import SHARED_MEMORY
from ram_triton.server.health import Health
from ram_triton.server.process import TritonServer

# Of the canary:
CANARY_INTERVAL = 5.0  # seconds between two pictures, if nobody else is answered meanwhile
AFTER_FAILURE = 1.0
FAILURES = 3  # in a row
SILENCES = 2  # of one model in a row: one may be a pause of the whole machine
SHORTEST, LONGEST = 10.0, 120.0  # seconds that an answer may take
PATIENCE = 60  # times what the quickest one took
# Of the watch:
TICK = 0.2  # seconds
STOPPED_TIME = 2.0  # seconds that a process may be stopped, as by SIGSTOP
RELOAD_TIMEOUT = 300.0  # seconds
# Each reload leaves a little of the old model in the server: after this number it is started again.
MOST_RELOADS = 20
RETIRED_TIME = 60.0  # seconds in which a replaced process ends what it has begun


class Canary(Thread):
    """Asks the ensembles of a server in turn; one that answers others need not answer it.

    Attributes:
        problem: what is wrong with the server, None if nothing is.
        is_well: whether the last question was answered, and no model is silent.
    """

    def __init__(
        self, api: Api, ensembles: list[str], quickest: float, interval: float = CANARY_INTERVAL
    ) -> None:
        """`start` begins to ask.

        Args:
            api: the server.
            ensembles: whom to ask.
            quickest: seconds that an answer has taken.
            interval: seconds between two questions.
        """
        super().__init__(daemon=True)
        self.problem: str | None = None
        self.is_well = True
        self.forgiven = False
        self._api, self._ensembles, self._interval = api, ensembles, interval
        self._over = Event()
        self._failures = 0
        self._silences: Counter[str] = Counter()  # of each model
        self._quickest = quickest
        self._answered: dict[str, float] = {}

    def forgive(self) -> None:
        """Let what failed until now not count: it is known why."""
        self._silences.clear()
        self._failures, self.problem, self.is_well, self.forgiven = 0, None, True, True

    def end(self) -> None:
        """Ask no more."""
        self._over.set()

    def run(self) -> None:
        """Ask until `end`."""
        pause = self._interval
        while not self._over.wait(pause):
            for model in self._ensembles:
                self._look_after(model)
            pause = self._interval if self.is_well else min(AFTER_FAILURE, self._interval)

    def _look_after(self, model: str) -> None:
        before = self._api.successes()
        if before.get(model, 0) > self._answered.get(model, 0):
            self._answered = before
            self._succeed(model)
            return
        patience = min(max(SHORTEST, PATIENCE * self._quickest), LONGEST)
        self.forgiven = False
        start = time.monotonic()
        outcome, reason = self._api.ask(model, patience)
        seconds = time.monotonic() - start
        after = self._api.successes()
        self._answered = after
        if self.forgiven or self._over.is_set():
            return
        if outcome is Outcome.ANSWERED:
            self._quickest = min(self._quickest, seconds) if model == RAM else self._quickest
            self._succeed(model)
        elif outcome is Outcome.FAILED:
            self.is_well = False
            self._failures += 1
            if self._failures >= FAILURES:
                self.problem = f"{model} {outcome.value}: {reason}"
        elif outcome is Outcome.SILENT and after.get(model, 0) <= before.get(model, 0):
            self.is_well = False
            self._silences[model] += 1
            if self._silences[model] >= SILENCES:
                self.problem = f"{model} {outcome.value} ({reason}, {seconds:.0f} s)"

    def _succeed(self, model: str) -> None:
        self._silences.pop(model, None)
        self._failures, self.is_well = 0, not self._silences


class Watch:
    """Looks after one start of a server, and loads a model again whose process died."""

    def __init__(
        self,
        server: TritonServer,
        api: Api,
        canary: Canary,
        health: Health,
        say: Callable[[str], None],
        can_reload: bool,
    ) -> None:
        """`until` does it.

        Args:
            server: ready.
            api: its endpoint.
            canary: asks it.
            health: what is shown.
            say: called with each line that an operator should see.
            can_reload: whether a model can be loaded again, or else the server must be restarted.
        """
        self.reloads = 0
        self._server, self._api, self._canary = server, api, canary
        self._health, self._say, self._can_reload = health, say, can_reload
        self._known = {stub.id: stub for stub in stubs(server.process_group)}
        self._retired: dict[Stub, float] = {}
        self._stopped_since: dict[int, float] = {}
        self._loading: dict[str, Future[float]] = {}
        self._died: dict[str, list[int]] = {}
        self._instances = Counter(stub.model for stub in self._known.values())
        self._threads = ThreadPoolExecutor(thread_name_prefix="reload")

    def until(self, stop: Event) -> str | None:
        """Return None when `stop` is set, or else what is so wrong that it must be restarted."""
        try:
            while not stop.wait(TICK):
                problem = self._look()
                if problem is not None:
                    return problem
        finally:
            self._threads.shutdown(wait=False)  # they end with the server
        return None

    def _look(self) -> str | None:
        if ended := self._server.ended:
            return ended
        self._kill_stopped()
        if is_over(self._server.process_group):
            return "tritonserver was stopped, and killed"
        try:
            self._finish_loading()
            self._find_dead()
        except ServerError as error:
            return str(error)
        self._end_retired()
        if not self._loading:
            if self._canary.problem:
                return self._canary.problem
            self._health.state = "ready" if self._canary.is_well else "failing"
        return None

    def _kill_stopped(self) -> None:
        """Kill what somebody has stopped: it would not answer, and hold its clients up."""
        now = time.monotonic()
        for process in [self._server.process_group, *self._known]:
            if state(process) != STOPPED:
                self._stopped_since.pop(process, None)
            elif now - self._stopped_since.setdefault(process, now) > STOPPED_TIME:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _find_dead(self) -> None:
        dead = [stub for stub in self._known.values() if is_over(stub.id)]
        for stub in dead:
            del self._known[stub.id]
            self._died.setdefault(stub.model, []).append(stub.id)
        for model in {stub.model for stub in dead} - set(self._loading):
            processes = " and ".join(map(str, self._died[model]))
            if not self._can_reload or self.reloads >= MOST_RELOADS:
                raise ServerError(f"process {processes} of {model} died")
            self.reloads += 1
            self._health.state = "reloading"
            self._health.reason = f"process {processes} of {model} died"
            self._loading[model] = self._threads.submit(self._api.reload, model, RELOAD_TIMEOUT)

    def _finish_loading(self) -> None:
        for model, future in [*self._loading.items()]:
            if not future.done():
                continue
            seconds = future.result()
            del self._loading[model]
            processes = " and ".join(map(str, self._died.pop(model, [])))
            self._health.reloads[model] += 1
            self._say(
                f"process {processes} of {model} died: {model} was loaded again, {seconds:.1f} s"
            )
            self._take_over(model)
            self._canary.forgive()

    def _take_over(self, model: str) -> None:
        """Know the new processes of a model, and let the old ones end."""
        now = time.monotonic()
        current = {stub.id: stub for stub in stubs(self._server.process_group)}
        old = [stub for stub in self._known.values() if stub.model == model]
        for stub in old:
            del self._known[stub.id]
            self._retired[stub] = now
        new = set(current) - set(self._known) - {stub.id for stub in self._retired}
        self._known |= {each: current[each] for each in new}
        if sum(current[each].model == model for each in new) < self._instances[model]:
            raise ServerError(f"a process of {model} died as it was loaded again")

    def _end_retired(self) -> None:
        """Kill what Triton 24.10 does not end, since another process of its model had died."""
        for stub, since in [*self._retired.items()]:
            if time.monotonic() - since > RETIRED_TIME:
                del self._retired[stub]
                if stub.region.encode() in command_line(stub.id):  # its id may be another's by now
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(stub.id, signal.SIGKILL)
                (SHARED_MEMORY / stub.region).unlink(missing_ok=True)
