"""What a test needs before its clock starts: pictures, and the answers to them."""

import random
from argparse import Namespace
from copy import copy
from pathlib import Path

import gevent
from distributed import WorkersError
from expected import Expected, ExpectedError
from locust.env import Environment
from options import problem
from pictures import PicturesError
from progress import Watched
from ram_client import RamError
from rehearsal import rehearse
from session import find_pictures
from traffic import Kind, Traffic, make_kinds
from transports import GrpcTransport, require_server
from users import HttpUser


class LoadError(RuntimeError):
    """The test cannot run; the message says why, in one line."""


# All of them say in one line what is wrong.
PROBLEMS = (ExpectedError, PicturesError, WorkersError, LoadError, RamError)
# The options that pictures and answers depend on.
SETTINGS = (
    "host",
    "grpc_server",
    "images",
    "threshold",
    "top_k",
    "batch",
    "labels",
    "tolerance",
    "expected",
)


class Preparation:
    """Takes the answers once, for all tests of a process that ask for the same.

    It works beside the test: one that is stopped meanwhile leaves them to the next.
    """

    def __init__(self, environment: Environment):
        self._environment = environment
        self._settings: tuple | None = None
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> gevent.Greenlet:
        """Begin, unless what the options ask for is there or under way."""
        options = copy(self._environment.parsed_options)
        options.host = self._environment.host
        settings = tuple(getattr(options, name) for name in SETTINGS)
        failed = self._greenlet and isinstance(self._greenlet.value, PROBLEMS)
        if failed or settings != self._settings:
            with_http = HttpUser in self._environment.user_classes
            self._greenlet = gevent.spawn(_prepare, options, options.host if with_http else None)
            self._settings = settings
        return self._greenlet

    def result(self) -> tuple[Traffic, Expected]:
        """Wait for what to send and what to expect; raises one of `PROBLEMS` where it cannot be."""
        check_options(self._environment.parsed_options)
        result = self.start().get()
        if isinstance(result, PROBLEMS):
            raise result
        return result


def check_options(options: Namespace) -> None:
    """Raise a LoadError where options are wrong, or contradict each other."""
    if wrong := problem(options):
        raise LoadError(wrong)


def make_traffic(options: Namespace, expected: Expected) -> Traffic:
    """Return what to send, all of which has an expected answer; else raises an ExpectedError."""
    kinds = make_kinds(options.threshold, options.top_k, options.batch)
    pictures, broken = find_pictures(options.images)
    alone = [kind.label for kind in kinds.values() if kind.images == 1 and not kind.refused]
    expected.require(pictures, alone)
    if expected.open:
        kinds["open"] = Kind("open", labels=expected.open.labels)
    return Traffic(pictures, broken, kinds, random.Random())


def _prepare(options: Namespace, url: str | None) -> tuple[Traffic, Expected] | Exception:
    try:
        require_server(options.grpc_server, url, options.timeout)
        expected = _expected_answers(options)
        return make_traffic(options, expected), expected
    except PROBLEMS as error:
        return error  # gevent would print one that was raised here


def _expected_answers(options: Namespace) -> Expected:
    """Read the expected answers, or ask the server for them; see --expected."""
    path = Path(options.expected) if options.expected else None
    if path and path.exists():
        return Expected.load(path, options.tolerance)
    pictures, broken = find_pictures(options.images)
    print(f"load: asking for {len(pictures)} pictures' answers before the load", flush=True)
    kinds = make_kinds(options.threshold, options.top_k, options.batch)
    watched = Watched(GrpcTransport(options.grpc_server, options.timeout))
    expected = rehearse(
        watched, pictures, broken, list(kinds.values()), options.tolerance, options.labels
    )
    alike, pairs = expected.alike()
    print(
        f"load: a swap of answers would show in {pairs - alike} of {pairs} pairs of pictures",
        flush=True,
    )
    if expected.thresholds is None:
        print(
            "load: ram_postprocess cannot be asked for the tags' thresholds: tags near them "
            "that come or go will count as failures"
        )
    users = options.num_users or 1
    if watched.median() * users > options.timeout:
        print(
            f"load: alone an answer takes {watched.median():.1f} s: of {users} users' at once "
            f"some may exceed --timeout {options.timeout:g}",
            flush=True,
        )
    if path:
        expected.save(path)
    return expected
