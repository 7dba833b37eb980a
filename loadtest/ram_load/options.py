"""The options of the load test, added to those of locust; locust's web page shows most of them."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from locust.env import Environment
from ram_triton.arguments import natural, not_negative, port, positive
from ram_triton.errors import LoadError

LARGEST_BATCH = 32  # `max_batch_size` in the models' configs
METRICS_AFTER_HTTP = 2  # Triton's ports: HTTP 8000, gRPC 8001, metrics 8002


def _number(
    read: Callable[[str], float], is_right: Callable[[float], bool], what: str
) -> Callable[[str], float]:
    def check(text: str) -> float:
        if is_right(number := read(text)):
            return number
        raise ArgumentTypeError(f"'{text}' is not {what}")

    return check


_above_zero = _number(not_negative, lambda number: number > 0, "a number above 0")
_share = _number(not_negative, lambda number: number <= 1, "a share between 0 and 1: 0.05 is 5 %")
_batch = _number(
    positive,
    lambda number: 2 <= number <= LARGEST_BATCH,
    f"between 2 and {LARGEST_BATCH}, the server's largest",
)


def _address(text: str) -> str:
    host, _, number = text.rpartition(":")
    if not host:
        raise ArgumentTypeError(f"'{text}' is not HOST:PORT")
    port(number)
    return text


def _rates(text: str) -> str:
    """Check the rates, which stay a text: the web page can show no list."""
    for rate in filter(None, text.split(",")):
        _above_zero(rate)
    return text


class Option(NamedTuple):
    """An option of the command line.

    Attributes:
        flag: its name there.
        default: not None and not a Path: the web page keeps a value's type, and a master sends all
            values to its workers.
        metavar: names its value in the help; empty for a switch.
        type: reads and checks the value.
        help: the default is added to it, because the page knows no %(default)s.
        on_page: whether locust's web page shows it.
    """

    flag: str
    default: str | float | bool
    metavar: str
    type: Callable[[str], object]
    help: str
    on_page: bool = True


GRPC = "Triton's gRPC address; --host is its HTTP address"
METRICS = "Triton's metrics, for the times in its queues (default: --host, at its port + 2)"
IMAGES = "folder of images to send (default: the demo's, in several sizes and formats)"
LABELS = "labels per request of those that bring their own, if the server takes them; 0: no such"
TOLERANCE = (
    "how far a score may differ from that of before the load; a tag nearer than that to its "
    "threshold may be there or not"
)
EXPECTED = (
    "the expected answers: read if FILE exists, else asked from the server and written (default: "
    "asked before each run, and written to runs/load/expected.json)"
)
REPOSITORY = (
    "the served model repository, for the tags' thresholds (default: asked from the server)"
)
RATE = (
    "requests arrive at R per second, whether or not the server keeps up; several rates are steps. "
    "--users is how many requests can be in flight (default: closed loop, each user sends its next "
    "request when it has its answer)"
)
P99 = "limit of the 99th percentile of the latency (default: not limited)"
FAILURES = "limit of the share of requests that fail or are answered wrongly"
THROUGHPUT = "right answers per second that must be reached (default: not limited)"
RAMP = "find the highest rate of arrivals that keeps --max-p99; --run-time is ignored"
PLOT = "PNG of latency over time, and of the times in the server's queues"
OPTIONS = (
    Option("--grpc-server", "127.0.0.1:8001", "HOST:PORT", _address, GRPC),
    Option("--metrics-url", "", "URL", str, METRICS),
    Option("--timeout", 10.0, "SECONDS", _above_zero, "a request that takes longer fails"),
    Option("--images", "", "DIR", str, IMAGES),
    Option("--threshold", 0.5, "0..1", _share, "threshold of requests that set one"),
    Option("--top-k", 5, "N", positive, "highest number of tags of requests that set one"),
    Option("--batch", 4, "N", _batch, "images per request of those that carry several"),
    Option("--labels", 20, "N", natural, LABELS),
    Option("--tolerance", 0.005, "SCORE", not_negative, TOLERANCE),
    Option("--expected", "", "FILE", str, EXPECTED),
    Option("--repository", "", "DIR", str, REPOSITORY),
    Option("--rate", "", "R[,R...]", _rates, RATE),
    Option("--rate-step", 30.0, "SECONDS", _above_zero, "how long each of several rates lasts"),
    Option("--max-p99", 0.0, "MS", not_negative, P99),
    Option("--max-failures", 0.0, "0..1", _share, FAILURES),
    Option("--min-throughput", 0.0, "R", not_negative, THROUGHPUT),
    Option("--ramp", False, "", str, RAMP, False),
    Option("--ramp-from", 1.0, "R", _above_zero, "first rate, requests per second", False),
    Option("--ramp-to", 10000.0, "R", _above_zero, "highest rate, requests per second", False),
    Option("--ramp-step", 15.0, "SECONDS", _above_zero, "how long each rate is tried", False),
    Option("--ramp-precision", 0.1, "SHARE", _above_zero, "how narrow the result is", False),
    Option("--plot", "", "FILE", str, PLOT, False),
)


def add_options(parser: Any) -> None:
    """Add them to locust's parser, without a group: the page shows nothing of groups."""
    for flag, default, metavar, read, text, on_page in OPTIONS:
        note = f" (default: {default})" if default else ""
        keywords: dict[str, Any] = {"type": read, "metavar": metavar}
        if not metavar:
            keywords = {"action": "store_true"}
        keywords |= {"default": default, "help": text + note, "include_in_web_ui": on_page}
        parser.add_argument(flag, **keywords)


def find_problem(options: Namespace) -> str | None:
    """Return what is wrong with the options, alone (on the web page) or together, or None."""
    for option in OPTIONS:
        try:
            option.type(str(getattr(options, option.flag.removeprefix("--").replace("-", "_"))))
        except ArgumentTypeError as error:
            return f"{option.flag}: {error}"
    if not options.ramp:
        return None
    if not options.max_p99:
        return "--ramp needs the limit that it looks for: --max-p99 MS"
    if options.min_throughput:
        return "--ramp judges rates by --max-p99 and --max-failures: leave out --min-throughput"
    if options.rate:
        return "--ramp chooses the rates itself: leave out --rate"
    if options.ramp_from > options.ramp_to or options.ramp_precision >= 1:
        return "--ramp-from must not exceed --ramp-to, and --ramp-precision must be below 1"
    return None


def options_of(environment: Environment) -> Namespace:
    """Return the parsed options, which the web page changes in place."""
    assert isinstance(environment.parsed_options, Namespace)
    return environment.parsed_options


def check_options(options: Namespace) -> None:
    """Check the options; raises a LoadError if anything is wrong with them."""
    if problem := find_problem(options):
        raise LoadError(problem)


def rates_of(options: Namespace) -> list[float]:
    """Return the rates of arrivals, requests per second; an empty list for the closed loop."""
    return [float(rate) for rate in options.rate.split(",") if rate]


def metrics_url(options: Namespace) -> str:
    """Return where Triton's metrics are: as given, or guessed from the HTTP address."""
    if options.metrics_url:
        return str(options.metrics_url)
    host = options.host or ""
    http = urlsplit(host if "//" in host else f"//{host}")
    try:
        number = http.port or 8000
    except ValueError:  # nothing answers there either, and that is reported
        number = 8000
    return f"http://{http.hostname or '127.0.0.1'}:{number + METRICS_AFTER_HTTP}/metrics"


def describe(options: Namespace) -> str:
    """Return one line about the load: how many users, and at which rates."""
    users = options.num_users or 1
    loop = "closed loop"
    if options.ramp:
        loop = f"rates up to a p99 of {options.max_p99:g} ms"
    elif options.rate:
        loop = f"{options.rate.replace(',', ', ')} requests/s"
    return f"{users} {'user' if users == 1 else 'users'}, {loop}"
