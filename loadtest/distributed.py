"""What master and workers tell each other, beyond locust's own messages."""

from collections.abc import Callable

import gevent
from expected import Expected
from locust.runners import WORKER_REPORT_INTERVAL, MasterRunner, WorkerRunner

# Until all that workers have counted has arrived in the master.
SETTLE = 2 * WORKER_REPORT_INTERVAL + 1  # seconds


class Workers:
    """The master's side: hands out the expected answers, sets rates, waits for the last answers."""

    def __init__(self, runner: MasterRunner):
        self._runner = runner
        self._unfinished = 0
        self._pending: dict[str, int] = {}
        runner.register_message("ram_finished", self._on_finished)
        runner.environment.events.worker_report.add_listener(self._on_report)

    def begin(self, expected: Expected) -> None:
        """Give each worker the expected answers and its share of the arrivals."""
        workers = [client.id for client in self._runner.clients.all]
        answers = expected.as_dict()
        for number, worker in enumerate(workers):
            message = {"expected": answers, "share": [number, len(workers)]}
            self._runner.send_message("ram_expected", message, worker)

    def set_rate(self, rate: float) -> None:
        """Let requests arrive at this rate, of all workers together; 0 stops them."""
        self._runner.send_message("ram_rate", rate)

    def pending(self) -> int:
        """Return how many requests are due or sent and not yet counted, by the last reports."""
        return sum(self._pending.values())

    def finish(self, timeout: float) -> None:
        """Wait until workers have counted what they sent, and their reports have arrived."""
        self._unfinished = len(self._runner.clients.all)
        self._runner.send_message("ram_finish")
        with gevent.Timeout(timeout, exception=False):
            while self._unfinished > 0:
                gevent.sleep(0.1)
        gevent.sleep(WORKER_REPORT_INTERVAL + 1)

    def _on_finished(self, environment, msg) -> None:
        self._unfinished -= 1

    def _on_report(self, client_id: str, data: dict) -> None:
        self._pending[client_id] = data.get("ram_pending", 0)


class Worker:
    """A worker's side.

    Args:
        runner: locust's.
        set_rate: changes the rate of this process's arrivals.
        finish: counts all that this process has sent.
        pending: tells how many requests are due or sent and not yet counted.

    Attributes:
        expected: the answers, once the master has sent them.
        share: this worker's number, and how many there are.
    """

    def __init__(
        self,
        runner: WorkerRunner,
        set_rate: Callable[[float], None],
        finish: Callable[[], None],
        pending: Callable[[], int],
    ):
        self.expected: Expected | None = None
        self.share = (0, 1)
        self._runner = runner
        self._set_rate = set_rate
        self._finish = finish
        self._pending = pending
        runner.register_message("ram_expected", self._on_expected)
        runner.register_message("ram_rate", self._on_rate)
        runner.register_message("ram_finish", self._on_finish, concurrent=True)
        runner.environment.events.report_to_master.add_listener(self._on_report)

    def _on_expected(self, environment, msg) -> None:
        self.expected = Expected.from_dict(msg.data["expected"])
        self.share = tuple(msg.data["share"])

    def _on_rate(self, environment, msg) -> None:
        self._set_rate(msg.data)

    def _on_finish(self, environment, msg) -> None:
        self._finish()
        self._runner.send_message("ram_finished")

    def _on_report(self, client_id: str, data: dict) -> None:
        data["ram_pending"] = self._pending()
