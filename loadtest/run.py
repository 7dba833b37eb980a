"""The course of a run: what happens when locust starts, when a test starts and when it ends.

Distributed, the master takes the expected answers and judges the run; workers send the requests.
"""

import math
import signal
import sys
import time
from pathlib import Path

import gevent
from arrivals import Arrivals
from distributed import SETTLE, Worker, Workers
from expected import Expected
from knee import KneeSearch
from limits import Limits
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC
from options import limits_of, rates_of
from percentiles import Counts, Latencies
from plot import draw
from preparation import PROBLEMS, LoadError, Preparation, check_options, make_traffic
from ramp import Ramp
from session import Session
from timeline import Timeline
from traffic import Traffic
from transports import prepare_grpc

GRACE = 5.0  # seconds beyond a request's own timeout
TOO_EARLY = (
    "the test ended before the expected answers were all taken; they are kept for the next one"
)


class Unsent(Exception):
    """A request was due, but all users were waiting for answers when the run ended."""


class Run:
    """One process's part in the test, as locust's events call for it."""

    def __init__(self, environment: Environment):
        # An interrupt goes to locust's main greenlet: one that hits another has its name printed.
        gevent.signal_handler(
            signal.SIGINT, gevent.get_hub().handle_system_error, KeyboardInterrupt, None
        )
        prepare_grpc()  # not earlier: --processes forks before this
        self.environment = environment
        self.preparation = Preparation(environment)
        self.latencies = Latencies(environment)
        self.began = self.lasted = 0.0
        self.timeline: Timeline | None = None
        self.verdict: list[str] = []
        self.is_preparing = False
        self.session: Session | None = None  # none before the test, and in a master
        environment.ram = self
        runner = environment.runner
        self.workers = Workers(runner) if isinstance(runner, MasterRunner) else None
        self.worker = None
        if isinstance(runner, WorkerRunner):
            self.worker = Worker(runner, self.set_rate, self.finish, self.pending, self.span)
        else:
            self.begin()
        for name in (
            "test_start",
            "spawning_complete",
            "test_stopping",
            "test_stop",
            "quitting",
            "quit",
        ):
            getattr(environment.events, name).add_listener(getattr(self, f"on_{name}"))

    @property
    def options(self):
        """The command line's options, as the web page may have changed them."""
        return self.environment.parsed_options

    def begin(self) -> None:
        """Do what can be done before the test starts, or end with a line that says what is wrong.

        That is nearly all, since the run time counts from the start; the page need not wait for it.
        """
        options = self.options
        try:
            check_options(options)
            if options.ramp:
                self.environment.shape_class = self.make_ramp()
            self.preparation.start()
            if options.headless:
                self.preparation.result()
            if options.headless and self.workers:
                self.workers.gather(options.expect_workers, options.expect_workers_max_wait)
        except PROBLEMS as error:
            sys.stderr.write(f"load: {error}\n")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("load: interrupted before the load\n")
            sys.exit(1)

    def on_test_start(self, environment: Environment) -> None:
        """Begin to count. Under the web page each test has options of its own."""
        self.session = None
        environment.process_exit_code = 1  # until the run is judged
        try:
            self.is_preparing = True
            traffic, expected = self.take_expected()
        except PROBLEMS as error:
            sys.stderr.write(f"load: {error}\n")
            gevent.spawn_later(1, environment.runner.stop)  # users find no session, and do nothing
            return
        finally:
            self.is_preparing = False
        if self.workers:
            self.workers.begin(expected)
        else:
            share = self.worker.share if self.worker else (0, 1)
            arrivals = Arrivals(share) if self.options.rate or self.options.ramp else None
            self.session = Session(traffic, expected, arrivals)
        if not self.worker:
            environment.stats.clear_all()  # their clock ran while answers were taken
            self.verdict.clear()
            self.latencies.clear()
            self.began = time.perf_counter()
            self.timeline = Timeline(environment, self.options.metrics_url)
            self.timeline.start()

    def take_expected(self) -> tuple[Traffic, Expected]:
        """Return what to send and what to expect; raises one of `PROBLEMS` where it cannot."""
        if self.worker:
            check_options(self.options)
            expected = self.worker.take_expected()
            if expected is None:
                raise LoadError("this worker came when the test had begun: it sends nothing")
            return make_traffic(self.options, expected), expected
        began = time.perf_counter()
        result = self.preparation.result()
        run_time = self.options.run_time or math.inf
        if not self.options.headless and time.perf_counter() - began >= run_time:
            raise LoadError(TOO_EARLY)
        return result

    def on_spawning_complete(self, user_count: int) -> None:
        """Let requests arrive, once the users are there to send them."""
        session = self.session
        if session and session.arrivals and self.options.rate and not session.finished:
            session.arrivals.start_once(rates_of(self.options), self.options.rate_step)

    def on_test_stopping(self, environment: Environment) -> None:
        """Wait for all answers before locust ends the users, so that none is left uncounted."""
        self.lasted = time.perf_counter() - self.began
        if self.is_preparing:
            sys.stderr.write(f"load: {TOO_EARLY}\n")
        if self.workers:
            self.workers.finish(self.options.timeout + 2 * GRACE)
        else:
            self.finish()

    def finish(self) -> None:
        """Count what is in flight, and what was never sent."""
        if self.session is None:
            return
        for waited in self.session.finish(self.options.timeout + GRACE):
            self.environment.events.request.fire(
                request_type="open loop",
                name="unsent",
                response_time=1000 * waited,
                response_length=0,
                exception=Unsent("was due, but never sent: all users were waiting"),
                context={},
            )

    def on_test_stop(self, environment: Environment) -> None:
        """Judge the run."""
        if self.timeline is None:
            return
        self.timeline.stop()
        if self.options.csv_prefix:
            gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.1)  # or locust's files lack what came last
        judged = self.workers.judge() if self.workers else []
        self.verdict = []
        if self.options.ramp:
            ramp = environment.shape_class
            kept, self.verdict = bool(ramp.search.good) and ramp.is_over, ramp.lines()
        else:
            seconds = (self.workers or self).span()
            figures = Counts.of(environment).figures(seconds)
            judged += limits_of(self.options).verdict(figures)
            kept = not self.is_interrupted()
            if not kept:
                text = f"{self.lasted:.0f} s of --run-time {self.options.run_time} s"
                self.verdict.append(f"interrupted after {text}")
        self.verdict += [("kept      " if ok else "EXCEEDED  ") + line for ok, line in judged]
        environment.process_exit_code = 0 if kept and all(ok for ok, _ in judged) else 1
        if self.options.plot:
            self.verdict.append(self.plot(Path(self.options.plot)))
        self.timeline = None
        if not self.options.headless:
            self.print_verdict()

    def on_quitting(self, environment: Environment, **_: object) -> None:
        """Judge a run that Ctrl-C ends: locust settles the exit status before it stops the run."""
        if self.timeline and not self.worker:
            environment.runner.stop()

    def is_interrupted(self) -> bool:
        """Tell whether the run ended before its time; on the web page that is no fault."""
        run_time = self.options.run_time or 0
        return self.options.headless and self.lasted < run_time - min(1, run_time / 2)

    def on_quit(self, exit_code: int) -> None:
        """Print the verdict below locust's tables."""
        if self.options.headless and not self.worker:
            self.print_verdict()

    def print_verdict(self) -> None:
        """Print how the run compares with its limits."""
        print("\n".join(["", *self.verdict]), flush=True)

    def plot(self, path: Path) -> str:
        """Draw the run; returns the line that says where, or why not."""
        try:
            draw(self.timeline.samples, path, self.options.max_p99)
        except OSError as error:
            return f"no plot: {path}: {error.strerror}"
        return f"plot: {path}"

    def make_ramp(self) -> Ramp:
        """Return the shape of a run that looks for the knee."""
        options, source = self.options, self.workers or self
        return Ramp(
            environment=self.environment,
            search=KneeSearch(options.ramp_from, options.ramp_to, options.ramp_precision),
            limits=Limits(options.max_p99, options.max_failures),
            step=options.ramp_step,
            settle=SETTLE if self.workers else 0,
            set_rate=source.set_rate,
            pending=source.pending,
            is_whole=lambda: not (self.workers and self.workers.lost()),
        )

    def set_rate(self, rate: float) -> None:
        """Let requests arrive at this rate; 0 stops them."""
        if self.session and rate:
            self.session.arrivals.start([rate])
        elif self.session:
            self.session.arrivals.pause()

    def pending(self) -> int:
        """Return how many requests are due or sent, and not yet counted."""
        return self.session.pending() if self.session else 0

    def span(self) -> float:
        """Return over how many seconds requests were due and answered."""
        return self.session.span() if self.session else 0.0
