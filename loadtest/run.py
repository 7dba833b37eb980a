"""The course of a run: what happens when locust starts, when a test starts and when it ends.

Distributed, the master takes the expected answers and judges the run; workers send the requests.
"""

import random
import sys
from pathlib import Path

import gevent
from arrivals import Arrivals
from distributed import SETTLE, Worker, Workers
from expected import Expected, ExpectedError
from knee import KneeSearch
from limits import Limits
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC
from options import limits_of, problem, rates_of
from percentiles import Counts
from pictures import PicturesError
from plot import draw
from ram_client import RamError
from ramp import Ramp
from rehearsal import rehearse
from session import Session, find_pictures
from timeline import Timeline
from traffic import Kind, Traffic, make_kinds
from transports import GrpcTransport, prepare_grpc, require_server
from users import HttpUser

GRACE = 5.0  # seconds beyond a request's own timeout


class LoadError(RuntimeError):
    """The test can't run; the message says why, in one line."""


class Unsent(Exception):
    """A request was due, but all users were waiting for answers when the run ended."""


# All of them say in one line what is wrong.
PROBLEMS = (ExpectedError, PicturesError, LoadError, RamError)


class Run:
    """One process's part in the test, as locust's events call for it."""

    def __init__(self, environment: Environment):
        prepare_grpc()  # not earlier: --processes forks before this
        self.environment = environment
        self.expected: Expected | None = None
        self.timeline: Timeline | None = None
        self.verdict: list[str] = []
        self.is_stopped = False
        self.session: Session | None = None  # none before the test, and in a master
        environment.ram = self
        runner = environment.runner
        self.workers = Workers(runner) if isinstance(runner, MasterRunner) else None
        self.worker = None
        if isinstance(runner, WorkerRunner):
            self.worker = Worker(runner, self.set_rate, self.finish, self.pending)
        else:
            self.begin()
        for name in ("test_start", "spawning_complete", "test_stopping", "test_stop", "quit"):
            getattr(environment.events, name).add_listener(getattr(self, f"on_{name}"))

    @property
    def options(self):
        """The command line's options, as the web page may have changed them."""
        return self.environment.parsed_options

    def begin(self) -> None:
        """Do what can be done before the test starts, or end with a line that says what is wrong.

        Without the web page that is nearly all, since the run time counts from the start.
        """
        try:
            self.check_options()
            if self.options.ramp:
                self.environment.shape_class = self.make_ramp()
            if self.options.headless:
                self.prepare()
        except PROBLEMS as error:
            sys.stderr.write(f"load: {error}\n")
            sys.exit(1)

    def on_test_start(self, environment: Environment) -> None:
        """Begin to count. Under the web page each test has options, and so answers, of its own."""
        self.session = None
        environment.process_exit_code = 1  # until the run is judged
        self.is_stopped = False
        try:
            if not self.options.headless or self.worker:
                self.prepare()
            if self.is_stopped:
                raise LoadError("the run time was over before the expected answers were all taken")
        except PROBLEMS as error:
            sys.stderr.write(f"load: {error}\n")
            gevent.spawn_later(1, environment.runner.stop)  # users find no session, and do nothing
            return
        if self.workers:
            self.workers.begin(self.expected)
        else:
            share = self.worker.share if self.worker else (0, 1)
            arrivals = Arrivals(share) if self.options.rate or self.options.ramp else None
            self.session = Session(self.traffic, self.expected, arrivals)
        if not self.worker:
            environment.stats.clear_all()  # their clock ran while answers were taken
            self.verdict.clear()
            self.timeline = Timeline(environment, self.options.metrics_url)
            self.timeline.start()

    def prepare(self) -> None:
        """Find the pictures, and the answers to them; raises one of `PROBLEMS` where it can't."""
        options = self.options
        self.check_options()
        kinds = make_kinds(options.threshold, options.top_k, options.batch)
        pictures, broken = find_pictures(options.images)
        if self.worker:
            self.expected = self.worker.expected
            if self.expected is None:
                raise LoadError("this worker came when the test had begun: it sends nothing")
        else:
            url = self.environment.host if HttpUser in self.environment.user_classes else None
            require_server(options.grpc_server, url, options.timeout)
            self.expected = self.expected_answers(pictures, broken, kinds)
        alone = [kind.label for kind in kinds.values() if kind.images == 1 and not kind.refused]
        self.expected.require(pictures, alone)
        if self.expected.open:
            kinds["open"] = Kind("open", labels=self.expected.open.labels)
        self.traffic = Traffic(pictures, broken, kinds, random.Random())

    def expected_answers(self, pictures, broken, kinds) -> Expected:
        """Read the expected answers, or ask the server for them; see --expected."""
        options = self.options
        path = Path(options.expected) if options.expected else None
        if path and path.exists():
            return Expected.load(path, options.tolerance)
        print(f"load: asking for {len(pictures)} pictures' answers before the load", flush=True)
        expected = rehearse(
            GrpcTransport(options.grpc_server, options.timeout),
            pictures, broken, list(kinds.values()), options.tolerance, options.labels,
        )  # fmt: skip
        alike, pairs = expected.alike()
        print(f"load: a swap of answers would show in {pairs - alike} of {pairs} pairs of pictures")
        if expected.thresholds is None:
            print("load: ram_postprocess can't be asked for the tags' thresholds: tags near them "
                  "that come or go will count as failures")  # fmt: skip
        if path:
            expected.save(path)
        return expected

    def check_options(self) -> None:
        """Raise a LoadError where options contradict each other."""
        if wrong := problem(self.options):
            raise LoadError(wrong)

    def on_spawning_complete(self, user_count: int) -> None:
        """Let requests arrive, once the users are there to send them."""
        rates = rates_of(self.options)
        if self.session and self.session.arrivals and rates and not self.session.finished:
            self.session.arrivals.start_once(rates, self.options.rate_step)

    def on_test_stopping(self, environment: Environment) -> None:
        """Wait for all answers before locust ends the users, so that none is left uncounted."""
        self.is_stopped = True
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
        if self.options.ramp:
            ramp = environment.shape_class
            kept, self.verdict = bool(ramp.search.good), ramp.lines()
        else:
            total = environment.stats.total
            seconds = (total.last_request_timestamp or 0) - total.start_time
            lines = limits_of(self.options).verdict(Counts.of(total).figures(seconds))
            kept = all(kept for kept, _ in lines)
            self.verdict = [("kept      " if ok else "EXCEEDED  ") + line for ok, line in lines]
        environment.process_exit_code = 0 if kept else 1
        if self.options.plot:
            self.verdict.append(self.plot(Path(self.options.plot)))
        self.timeline = None
        if not self.options.headless:
            self.print_verdict()

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
