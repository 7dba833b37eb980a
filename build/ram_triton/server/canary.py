"""A picture now and then, so that a server that has stopped answering is noticed."""

import time
from collections import Counter
from threading import Event, Thread

from ram_triton.server.api import RAM, Api, Outcome

INTERVAL = 5.0  # seconds between two pictures, if nobody else is answered meanwhile
AFTER_FAILURE = 1.0
FAILURES = 3  # in a row
SILENCES = 2  # of one model in a row: one may be a pause of the whole machine
SHORTEST, LONGEST = 10.0, 120.0  # seconds that an answer may take
PATIENCE = 60  # times what the quickest one took


class Canary(Thread):
    """Asks the ensembles of a server in turn; one that answers others need not answer it.

    Attributes:
        problem: what is wrong with the server, None if nothing is.
        is_well: whether the last question was answered, and no model is silent.
    """

    def __init__(
        self, api: Api, ensembles: list[str], quickest: float, interval: float = INTERVAL
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
