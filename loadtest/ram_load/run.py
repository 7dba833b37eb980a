"""The course of a test: what happens when locust starts, when a test starts and when it ends."""

import math
import signal
import sys
import time
from pathlib import Path

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC
from ram_triton.errors import LoadError, RamTritonError

from ram_load.distributed import Session, Worker, Workers
from ram_load.expected import Expected, prepare
from ram_load.open_loop import Ramp
from ram_load.options import check_options, describe, metrics_url, options_of, rates_of
from ram_load.report import Timeline, draw, judge, set_title
from ram_load.transports import prepare_grpc

EVENTS = ("test_start", "spawning_complete", "test_stopping", "test_stop", "quitting", "quit")
TOO_EARLY = "the test ended before the expected answers were there; the next test has them"


def join(environment: Environment, needs_http: bool) -> Session:
    """Take part in the test, as one process of it.

    Args:
        environment: locust's.
        needs_http: whether some users send over HTTP.

    Returns:
        What the users of this process share; it stays empty in a master, which has no users.
    """
    hub = gevent.get_hub()
    # An interrupt has to reach locust's main greenlet: another one would only print its name.
    gevent.signal_handler(signal.SIGINT, hub.handle_system_error, KeyboardInterrupt, None)
    hub.NOT_ERROR = (*hub.NOT_ERROR, RamTritonError)  # not printed: whoever waits gets it
    prepare_grpc()  # not earlier: --processes forks before this
    session = Session(environment)
    if isinstance(environment.runner, WorkerRunner):
        Worker(environment, environment.runner, session)
    else:
        Run(environment, session, needs_http)
    return session


class Run:
    """The test in the process that judges it: the master, or the only one."""

    def __init__(self, environment: Environment, session: Session, needs_http: bool) -> None:
        assert environment.runner is not None
        self._environment, self._runner = environment, environment.runner
        self._options = options_of(environment)
        self._senders: Session | Workers = session
        if isinstance(environment.runner, MasterRunner):
            self._senders = Workers(environment, environment.runner)
        self._needs_http = needs_http
        self._is_by_hand = not (self._options.headless or self._options.autostart)
        self._began = self._lasted = 0.0
        self._ramp: Ramp | None = None
        self._timeline: Timeline | None = None  # there is none if no test runs
        self._verdict: list[str] = []
        self._is_preparing = self._has_rates = False
        self._prepare()
        for name in EVENTS:
            getattr(environment.events, name).add_listener(getattr(self, f"_on_{name}"))

    def _prepare(self) -> None:
        """Do what can be done before the test starts; exits with a line if anything is wrong.

        The run time counts from the start, so that is nearly all if the test starts by itself. If
        it starts on the web page, the page is there meanwhile.
        """
        options = self._options
        try:
            check_options(options)
            if options.ramp:
                self._ramp = Ramp(self._environment, self._senders)
                self._environment.shape_class = self._ramp
            preparation = gevent.spawn(prepare, options, self._needs_http)
            if not self._is_by_hand:
                preparation.get()
                if isinstance(self._senders, Workers):
                    number, timeout = options.expect_workers, options.expect_workers_max_wait
                    self._senders.gather(number, timeout)
        except RamTritonError as error:
            sys.exit(f"load: {error}")
        except KeyboardInterrupt:
            sys.exit("load: interrupted before the load")

    def _on_test_start(self, environment: Environment) -> None:
        """Begin to send and to count. On the web page each test has options of its own."""
        environment.process_exit_code = 1  # until the run is judged
        self._has_rates = False
        try:
            self._is_preparing = True
            self._senders.begin(self._take_expected())
        except RamTritonError as error:
            sys.stderr.write(f"load: {error}\n")
            return  # users find nothing to send, and `_on_spawning_complete` ends the test
        finally:
            self._is_preparing = False
        environment.stats.clear_all()  # their clock ran during the preparation
        self._verdict.clear()
        self._began = time.perf_counter()
        url = metrics_url(self._options) if self._options.plot else ""
        self._timeline = Timeline(self._senders.counts, url)

    def _take_expected(self) -> Expected:
        began = time.perf_counter()
        check_options(self._options)
        # In a greenlet of its own: it goes on if this test is stopped meanwhile.
        expected: Expected = gevent.spawn(prepare, self._options, self._needs_http).get()
        run_time = self._options.run_time or math.inf
        if self._is_by_hand and time.perf_counter() - began >= run_time:
            raise LoadError(TOO_EARLY)
        return expected

    def _on_spawning_complete(self, user_count: int) -> None:
        """Let requests arrive, once the users are there to send them."""
        if self._timeline is None:
            gevent.spawn(self._runner.stop)
        elif self._options.rate and not self._has_rates:
            self._has_rates = True  # the page can change the number of users again
            self._senders.set_rates(rates_of(self._options), self._options.rate_step)

    def _on_test_stopping(self, environment: Environment) -> None:
        """Wait for all answers before locust ends the users, so that each is counted."""
        if self._is_preparing:
            sys.stderr.write(f"load: {TOO_EARLY}\n")
        if self._timeline:
            self._lasted = time.perf_counter() - self._began
            self._senders.finish(self._options.timeout)

    def _on_test_stop(self, environment: Environment) -> None:
        """Judge the run."""
        if self._timeline is None:
            return
        self._timeline.stop()
        if self._options.csv_prefix:
            gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.1)  # or locust's files lack what came last
        environment.process_exit_code = 0 if self._judge() else 1
        if self._options.plot:
            self._verdict.append(self._plot(self._timeline, Path(self._options.plot)))
        self._timeline = None
        if not self._options.headless:
            self._print_verdict()

    def _judge(self) -> bool:
        """Compare the run with its limits, fill the verdict, and return whether all were kept."""
        options = self._options
        judged = self._senders.verdict() if isinstance(self._senders, Workers) else []
        if self._ramp:
            is_whole = bool(self._ramp.search.good) and self._ramp.is_over
            self._verdict = self._ramp.lines()
        else:
            judged += judge(options, self._senders.counts(), self._senders.span())
            # On the web page a run may be ended at any time.
            run_time = options.run_time or 0
            is_whole = not options.headless or self._lasted >= run_time - min(1, run_time / 2)
            if not is_whole:
                text = f"interrupted after {self._lasted:.0f} s of --run-time {run_time} s"
                self._verdict.append(text)
        self._verdict += [("kept      " if kept else "EXCEEDED  ") + line for kept, line in judged]
        return is_whole and all(kept for kept, _ in judged)

    def _on_quitting(self, environment: Environment, **_: object) -> None:
        """Judge a run that Ctrl-C ends: locust settles the exit status before it stops the run."""
        if self._timeline:
            self._runner.stop()

    def _on_quit(self, exit_code: int) -> None:
        """Give locust's report a title, and print the verdict below locust's tables."""
        if self._options.html_file:
            set_title(Path(self._options.html_file), f"RAM load test: {describe(self._options)}")
        if self._options.headless:
            self._print_verdict()

    def _print_verdict(self) -> None:
        print("\n".join(["", *self._verdict]), flush=True)

    def _plot(self, timeline: Timeline, path: Path) -> str:
        """Draw the run; returns the line that states where, or why not."""
        title = f"{describe(self._options)}, {self._options.host}"
        try:
            draw(timeline.samples, path, title, self._options.max_p99)
        except OSError as error:
            return f"no plot: {path}: {error.strerror}"
        return f"plot: {path}"
