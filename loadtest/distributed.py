"""What master and workers tell each other, beyond locust's own messages."""

import time
from collections.abc import Callable

import gevent
from expected import Expected
from locust.runners import STATE_MISSING, WORKER_REPORT_INTERVAL, MasterRunner, WorkerRunner
from pictures import PicturesError
from session import find_pictures

# Until all that workers have counted has arrived in the master.
SETTLE = 2 * WORKER_REPORT_INTERVAL + 1  # seconds


class WorkersError(RuntimeError):
    """The workers are not ready; the message says why, in one line."""


class Workers:
    """The master's side: hands out the expected answers, sets rates, waits for the last answers."""

    def __init__(self, runner: MasterRunner):
        self._runner = runner
        self._prepared: set[str] = set()
        self._problem: str | None = None
        self._begun: set[str] = set()
        self._finished: set[str] = set()
        self._pending: dict[str, int] = {}
        self._spans: dict[str, float] = {}
        runner.register_message("ram_here", self._on_here)
        runner.register_message("ram_prepared", self._on_prepared)
        runner.register_message("ram_finished", self._on_finished)
        runner.environment.events.worker_report.add_listener(self._on_report)

    def gather(self, number: int, timeout: float) -> None:
        """Wait for so many workers, and until all have their pictures.

        Args:
            number: of workers.
            timeout: seconds; 0 waits without end.

        Raises:
            WorkersError: they did not come in time, or one has no pictures.
        """
        began = told = time.monotonic()
        while True:
            there = {client.id for client in self._runner.clients.all if self._is_there(client.id)}
            if self._problem:
                raise WorkersError(f"a worker cannot take part: {self._problem}")
            ready = there & self._prepared
            if len(there) >= number and ready == there:
                return
            now = time.monotonic()
            text = f"{len(ready)} of {max(number, len(there))} workers are ready"
            if timeout and now - began > timeout:
                raise WorkersError(f"{text} after --expect-workers-max-wait {timeout:g}")
            if now - told > 5:
                told = now
                print(f"load: {text}", flush=True)
            gevent.sleep(0.1)

    def begin(self, expected: Expected) -> None:
        """Give each worker the expected answers and its share of the arrivals."""
        workers = [client.id for client in self._runner.clients.all if self._is_there(client.id)]
        self._begun, self._finished = set(workers), set()
        self._pending, self._spans = {}, {}
        answers = expected.as_dict()
        for number, worker in enumerate(workers):
            message = {"expected": answers, "share": [number, len(workers)]}
            self._runner.send_message("ram_expected", message, worker)

    def set_rate(self, rate: float) -> None:
        """Let requests arrive at this rate, of all workers together; 0 stops them."""
        self._runner.send_message("ram_rate", rate)

    def pending(self) -> int:
        """Return how many requests are due or sent and not yet counted, by the last reports."""
        return sum(self._pending.get(worker, 0) for worker in self._begun - self.lost())

    def span(self) -> float:
        """Return over how many seconds requests were due and answered, by the last reports."""
        return max(self._spans.values(), default=0.0)

    def lost(self) -> set[str]:
        """Return the workers that took part and are gone: nobody sent their share since."""
        return {worker for worker in self._begun - self._finished if not self._is_there(worker)}

    def finish(self, timeout: float) -> None:
        """Wait until workers have counted what they sent, and their reports have arrived."""
        self._runner.send_message("ram_finish")
        with gevent.Timeout(timeout, exception=False):
            while self._begun - self._finished - self.lost():
                gevent.sleep(0.1)
        gevent.sleep(WORKER_REPORT_INTERVAL + 1)

    def judge(self) -> list[tuple[bool, str]]:
        """Return a broken limit where workers were lost, as `Limits.verdict` does; else nothing."""
        lost = len(self._begun - self._finished)
        if not lost:
            return []
        text = f"{lost} of {len(self._begun)} lost, and their share of the load was not sent"
        return [(False, f"workers    {text}")]

    def _is_there(self, worker: str) -> bool:
        client = self._runner.clients.get(worker)
        return client is not None and client.state != STATE_MISSING

    def _on_here(self, environment, msg) -> None:
        options = environment.parsed_options
        self._runner.send_message("ram_prepare", options.images, msg.node_id)

    def _on_prepared(self, environment, msg) -> None:
        self._problem = self._problem or msg.data
        self._prepared.add(msg.node_id)

    def _on_finished(self, environment, msg) -> None:
        self._finished.add(msg.node_id)

    def _on_report(self, client_id: str, data: dict) -> None:
        self._pending[client_id] = data.get("ram_pending", 0)
        self._spans[client_id] = data.get("ram_span", 0.0)


class Worker:
    """A worker's side.

    Args:
        runner: locust's.
        set_rate: changes the rate of this process's arrivals.
        finish: counts all that this process has sent.
        pending: tells how many requests are due or sent and not yet counted.
        span: tells over how many seconds requests were due and answered.

    Attributes:
        share: this worker's number, and how many there are.
    """

    def __init__(
        self,
        runner: WorkerRunner,
        set_rate: Callable[[float], None],
        finish: Callable[[], None],
        pending: Callable[[], int],
        span: Callable[[], float],
    ):
        self._expected: Expected | None = None
        self.share = (0, 1)
        self._runner = runner
        self._set_rate = set_rate
        self._finish = finish
        self._pending = pending
        self._span = span
        runner.register_message("ram_prepare", self._on_prepare, concurrent=True)
        runner.register_message("ram_expected", self._on_expected)
        runner.register_message("ram_rate", self._on_rate)
        runner.register_message("ram_finish", self._on_finish, concurrent=True)
        runner.environment.events.report_to_master.add_listener(self._on_report)
        runner.send_message("ram_here")

    def take_expected(self) -> Expected | None:
        """Return the answers that the master sent for this test, None where it sent none."""
        expected, self._expected = self._expected, None
        return expected

    def _on_prepare(self, environment, msg) -> None:
        """Make the pictures: later their time would be the test's."""
        try:
            find_pictures(msg.data)
        except PicturesError as error:
            self._runner.send_message("ram_prepared", str(error))
        else:
            self._runner.send_message("ram_prepared")

    def _on_expected(self, environment, msg) -> None:
        self._expected = Expected.from_dict(msg.data["expected"])
        self.share = tuple(msg.data["share"])

    def _on_rate(self, environment, msg) -> None:
        self._set_rate(msg.data)

    def _on_finish(self, environment, msg) -> None:
        self._finish()
        self._runner.send_message("ram_finished")

    def _on_report(self, client_id: str, data: dict) -> None:
        data["ram_pending"] = self._pending()
        data["ram_span"] = self._span()
