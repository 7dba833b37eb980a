"""Who sends the requests: the users of this process, or those of a master's workers.

Locust sends a master's options to its workers when they start their users; the expected answers,
and which workers take part, travel among them. The other messages:

    ram_ready     to the master  the worker has its pictures, or what is wrong
    ram_rates     to workers     let requests arrive at these rates
    ram_finish    to workers     send no more, and count the answers to what was sent
    ram_finished  to the master  all answers are counted

A worker's reports also have its pending requests, the time from its first to its last one, and the
latencies since the report before.
"""

import math
import sys
import time
from collections import Counter
from typing import Any

import gevent
from locust.env import Environment
from locust.exception import StopUser
from locust.rpc import Message
from locust.runners import STATE_MISSING, WORKER_REPORT_INTERVAL, MasterRunner, WorkerRunner
from ram_triton.errors import LoadError, RamTritonError

from ram_load.expected import Answer, Expected
from ram_load.open_loop import Arrivals
from ram_load.options import check_options, options_of
from ram_load.report import Counts, round_latency, say
from ram_load.traffic import Traffic, find_pictures, make_kinds
from ram_load.transports import Transport, count_bytes

GRACE = 5.0  # seconds beyond a request's own timeout
POLL_INTERVAL = 0.02  # seconds
PRINT_INTERVAL = 5.0  # seconds


class Unsent(LoadError):
    """A request was due, but all users were waiting for answers when the run ended."""


class Session:
    """What the users of this process share during a run: what to send, and what is pending."""

    settle_time = 0.0  # seconds: all counts are here at once

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._is_over = True
        self._reset(False)

    def begin(self, expected: Expected, share: tuple[int, int] = (0, 1)) -> None:
        """Begin a run, with this share of the arrivals; in the closed loop users send at once.

        Raises:
            LoadError: there are no pictures, or there is no expected answer to one of them.
        """
        options = options_of(self._environment)
        pictures, broken = find_pictures(options.images)
        expected.require(pictures)
        self._traffic = Traffic(pictures, broken, make_kinds(options, expected.labels))
        self._expected, self._share = expected, share
        self._reset(bool(options.rate or options.ramp))
        self._is_over = False

    def _reset(self, is_open_loop: bool) -> None:
        self._arrivals = Arrivals() if is_open_loop else None
        self._in_flight = 0
        self._latencies: Counter[float] = Counter()
        self._first = self._last = 0.0  # when the first request was due, and the last was answered

    def wait(self) -> float:
        """Wait until a request is due, and return when that was; raises StopUser at the end."""
        if self._is_over:
            raise StopUser
        return self._arrivals.next() if self._arrivals else time.perf_counter()

    def send(self, transport: Transport, name: str, due: float) -> None:
        """Send a request of this kind, and report its latency and whether its answer is right."""
        request = self._traffic.request(name)
        self._first = self._first or due
        self._in_flight += 1
        try:
            answer: Answer
            try:
                answer = transport.tag([picture.data for picture in request.pictures], request.kind)
            except Exception as error:
                answer = error
            self._last = time.perf_counter()
            fault = self._expected.find_fault(request, answer)
            size = len(str(answer)) if isinstance(answer, Exception) else count_bytes(answer)
            self.count(transport.name, request.kind.label, self._last - due, size, fault)
        finally:
            self._in_flight -= 1

    def set_rates(self, rates: list[float], step: float = math.inf) -> None:
        """Let requests arrive at these rates, each for a step of seconds; none stops them."""
        if self._arrivals and not self._is_over:
            self._arrivals.start(rates, step, self._share)

    def count_pending(self) -> int:
        """Return how many requests are due or sent, and not yet counted."""
        return self._in_flight + (self._arrivals.count_waiting() if self._arrivals else 0)

    def count_lost(self) -> int:
        """Return how many workers are gone: none, since there are none."""
        return 0

    def counts(self) -> Counts:
        """Return the totals so far."""
        return Counts.of(self._environment, self._latencies)

    def take_latencies(self) -> dict[float, int]:
        """Return how many requests took how many milliseconds since the last call."""
        latencies, self._latencies = self._latencies, Counter()
        return dict(latencies)

    def span(self) -> float:
        """Return over how many seconds requests were due and answered."""
        return self._last - self._first if self._first else 0.0

    def finish(self, timeout: float) -> None:
        """Send no more, wait for the answers to what was sent, count what was due and not sent.

        Args:
            timeout: seconds a request may take.
        """
        if self._is_over:
            return
        self._is_over = True
        self._last = now = time.perf_counter()
        unsent = self._arrivals.close() if self._arrivals else []
        with gevent.Timeout(timeout + GRACE, exception=False):
            gevent.sleep(POLL_INTERVAL)
            while self._in_flight:
                gevent.sleep(POLL_INTERVAL)
        for due in unsent:
            error = Unsent("was due, but never sent: all users were waiting")
            self.count("open loop", "unsent (all users busy)", now - due, 0, error)

    def count(
        self, protocol: str, name: str, seconds: float, size: int, fault: Exception | None
    ) -> None:
        """Count a request: its latency, its answer's size in bytes, what is wrong with it."""
        self._latencies[round_latency(1000 * seconds)] += 1
        self._environment.events.request.fire(
            request_type=protocol,
            name=name,
            response_time=1000 * seconds,
            response_length=size,
            exception=fault,
            context={},
        )


class Workers:
    """The master's side of what `Session` does in one process."""

    settle_time = 2 * WORKER_REPORT_INTERVAL + 1  # seconds until all counts have arrived here

    def __init__(self, environment: Environment, runner: MasterRunner) -> None:
        self._environment = environment
        self._runner = runner
        self._ready: dict[str, str | None] = {}  # what is wrong with a worker
        self._begun: set[str] = set()
        self._finished: set[str] = set()
        self._reports: dict[str, dict[str, Any]] = {}
        self._latencies: Counter[float] = Counter()
        runner.register_message("ram_ready", self._on_ready)
        runner.register_message("ram_finished", self._on_finished)
        environment.events.worker_report.add_listener(self._on_report)

    def gather(self, number: int, timeout: float) -> None:
        """Wait for workers, and until all that are there have their pictures.

        Args:
            number: how many there have to be at least.
            timeout: seconds; 0 waits without limit.

        Raises:
            LoadError: they did not come in time, or one has no pictures.
        """
        began = printed = time.monotonic()
        while True:
            there = self._there()
            ready = there & self._ready.keys()
            for worker in ready:
                if problem := self._ready[worker]:
                    raise LoadError(f"a worker cannot take part: {problem}")
            if len(there) >= number and ready == there:
                return
            now = time.monotonic()
            text = f"{len(ready)} of {max(number, len(there))} workers are ready"
            if timeout and now - began > timeout:
                raise LoadError(f"{text} after --expect-workers-max-wait {timeout:g}")
            if now - printed > PRINT_INTERVAL:
                printed = now
                say(text)
            gevent.sleep(POLL_INTERVAL)

    def begin(self, expected: Expected) -> None:
        """Begin a run with the workers that are there."""
        self._begun, self._finished, self._reports = self._there(), set(), {}
        self._latencies.clear()
        options = options_of(self._environment)
        options.ram_expected = expected.values
        options.ram_workers = sorted(self._begun)

    def set_rates(self, rates: list[float], step: float = math.inf) -> None:
        """Let requests arrive at these rates, of all workers together; none stops them."""
        self._runner.send_message("ram_rates", {"rates": rates, "step": step})

    def count_pending(self) -> int:
        """Return how many requests are due or sent and not yet counted, by the last reports."""
        there = self._begun - self._lost()
        reports = self._reports.items()
        return sum(report["ram_pending"] for worker, report in reports if worker in there)

    def count_lost(self) -> int:
        """Return how many workers took part and have sent no share since then."""
        return len(self._lost())

    def counts(self) -> Counts:
        """Return the totals so far, by the last reports."""
        return Counts.of(self._environment, self._latencies)

    def span(self) -> float:
        """Return over how many seconds requests were due and answered, by the last reports."""
        return max((report["ram_span"] for report in self._reports.values()), default=0.0)

    def finish(self, timeout: float) -> None:
        """Wait until workers have counted what they sent, and their reports have arrived.

        Args:
            timeout: seconds a request may take.
        """
        self._runner.send_message("ram_finish")
        with gevent.Timeout(timeout + 2 * GRACE, exception=False):
            while self._begun - self._finished - self._lost():
                gevent.sleep(POLL_INTERVAL)
        gevent.sleep(WORKER_REPORT_INTERVAL + 1)

    def verdict(self) -> list[tuple[bool, str]]:
        """Return a limit that was not kept if workers were lost, as `judge` does."""
        lost = len(self._begun - self._finished)
        if not lost:
            return []
        text = f"{lost} of {len(self._begun)} lost, and their share of the load was not sent"
        return [(False, f"workers    {text}")]

    def _there(self) -> set[str]:
        clients = self._runner.clients.all
        return {client.id for client in clients if client.state != STATE_MISSING}

    def _lost(self) -> set[str]:
        return self._begun - self._finished - self._there()

    def _on_ready(self, environment: Environment, msg: Message) -> None:
        self._ready[msg.node_id] = msg.data["problem"]

    def _on_finished(self, environment: Environment, msg: Message) -> None:
        self._finished.add(msg.node_id)

    def _on_report(self, client_id: str, data: dict[str, Any]) -> None:
        self._reports[client_id] = data
        self._latencies.update(data.get("ram_latencies", {}))


class Worker:
    """A worker's side: hands the master's messages to the session of this process."""

    def __init__(self, environment: Environment, runner: WorkerRunner, session: Session) -> None:
        self._options = options_of(environment)
        self._runner = runner
        self._session = session
        runner.register_message("ram_rates", self._on_rates)
        runner.register_message("ram_finish", self._on_finish, concurrent=True)
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stopping.add_listener(self._on_test_stopping)
        environment.events.report_to_master.add_listener(self._on_report)
        gevent.spawn(self._make_pictures)

    def _make_pictures(self) -> None:
        """Make the pictures before the test: later their time would be the test's."""
        problem = None
        try:
            find_pictures(self._options.images)
        except RamTritonError as error:
            problem = str(error)
        self._runner.send_message("ram_ready", {"problem": problem})

    def _on_test_start(self, environment: Environment) -> None:
        options, worker = self._options, self._runner.client_id
        try:
            check_options(options)
            if worker not in options.ram_workers:
                raise LoadError("this worker joined after the test had begun: it sends nothing")
            share = options.ram_workers.index(worker), len(options.ram_workers)
            self._session.begin(Expected(options.ram_expected, options.tolerance), share)
        except RamTritonError as error:
            sys.stderr.write(f"load: {error}\n")
            environment.process_exit_code = 1

    def _on_rates(self, environment: Environment, msg: Message) -> None:
        self._session.set_rates(**msg.data)

    def _on_finish(self, environment: Environment, msg: Message) -> None:
        self._session.finish(self._options.timeout)
        self._runner.send_message("ram_finished")

    def _on_test_stopping(self, environment: Environment) -> None:
        self._session.finish(self._options.timeout)

    def _on_report(self, client_id: str, data: dict[str, Any]) -> None:
        data["ram_pending"] = self._session.count_pending()
        data["ram_span"] = self._session.span()
        data["ram_latencies"] = self._session.take_latencies()
