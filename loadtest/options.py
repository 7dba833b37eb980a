"""The load test's own command line options; locust's web page shows most of them too."""

from argparse import ArgumentTypeError, Namespace

from limits import Limits
from thresholds import BATCH


def add_options(parser) -> None:
    """Add them to locust's parser.

    Types and defaults are plain (no None, no Path): the web page keeps a value's type, and a
    master sends all of them to its workers. There are no groups: of these the page shows nothing.
    """

    def add(name: str, *, default: object, help: str, **keywords: object) -> None:
        # The page shows a default by itself, and would not fill in %(default)s.
        note = f" (default: {default})" if default else ""
        parser.add_argument(name, default=default, help=help + note, **keywords)

    add(
        "--grpc-server",
        metavar="HOST:PORT",
        default="127.0.0.1:8001",
        help="Triton's gRPC address; --host is its HTTP address",
    )
    add(
        "--metrics-url",
        metavar="URL",
        default="http://127.0.0.1:8002/metrics",
        help="Triton's metrics, for the time in its queues",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="what takes longer is a failure",
    )
    add(
        "--images",
        metavar="DIR",
        default="",
        help="folder of images to send (default: the demo's, in sizes and formats made for it)",
    )
    add(
        "--threshold",
        metavar="0..1",
        type=float,
        default=0.5,
        help="of the requests that set one",
    )
    add(
        "--top-k",
        metavar="N",
        type=int,
        default=5,
        help="of the requests that set one",
    )
    add(
        "--batch",
        metavar="N",
        type=int,
        default=4,
        help="images in a batch that a client sends",
    )
    add(
        "--labels",
        metavar="N",
        type=int,
        default=20,
        help="of the requests that bring their own, where the server takes them",
    )
    add(
        "--tolerance",
        metavar="SCORE",
        type=float,
        default=0.005,
        help="how far a score may differ from before the load; tags nearer than that to their "
        "threshold may come and go",
    )
    add(
        "--expected",
        metavar="FILE",
        default="",
        help="the expected answers: read where FILE exists, else written (default: asked from "
        "the server before each run)",
    )
    add(
        "--rate",
        metavar="R[,R...]",
        type=_rates,
        default="",
        help="requests arrive at R a second, whether or not the server keeps up; several are "
        "steps. --users is how many can be in flight (default: closed loop, each user sends "
        "its next request when it has its answer)",
    )
    add(
        "--rate-step",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long each of several rates lasts",
    )
    add(
        "--max-p99",
        metavar="MS",
        type=float,
        default=0.0,
        help="99th percentile of the latency (default: no limit)",
    )
    add(
        "--max-failures",
        metavar="0..1",
        type=float,
        default=0.0,
        help="share of requests that fail or are answered wrongly",
    )
    add(
        "--min-throughput",
        metavar="R",
        type=float,
        default=0.0,
        help="right answers a second (default: no limit)",
    )
    add(
        "--ramp",
        action="store_true",
        default=False,
        include_in_web_ui=False,
        help="find the highest rate of arrivals that keeps p99 under --max-p99; --run-time "
        "is not looked at",
    )
    add(
        "--ramp-from",
        metavar="R",
        type=float,
        default=1.0,
        include_in_web_ui=False,
        help="requests a second to begin with",
    )
    add(
        "--ramp-to",
        metavar="R",
        type=float,
        default=10000.0,
        include_in_web_ui=False,
        help="requests a second to end at",
    )
    add(
        "--ramp-step",
        metavar="SECONDS",
        type=float,
        default=15.0,
        include_in_web_ui=False,
        help="how long each rate is tried",
    )
    add(
        "--ramp-precision",
        metavar="SHARE",
        type=float,
        default=0.1,
        include_in_web_ui=False,
        help="how narrowly the knee is enclosed",
    )
    add(
        "--plot",
        metavar="FILE",
        default="",
        include_in_web_ui=False,
        help="PNG of latency over time, with the server's queue time beside it",
    )


def problem(options: Namespace) -> str | None:
    """Return what is wrong with options that belong together, None if nothing is."""
    if options.ramp and not options.max_p99:
        return "--ramp needs the limit that it looks for: --max-p99 MS"
    if options.ramp and options.min_throughput:
        return "--ramp judges rates by --max-p99 and --max-failures: leave out --min-throughput"
    if options.ramp and options.rate:
        return "--ramp chooses the rates itself: leave out --rate"
    if options.ramp and not 0 < options.ramp_from <= options.ramp_to:
        return "--ramp-from must be above 0 and not above --ramp-to"
    if not 0 < options.ramp_precision < 1:
        return "--ramp-precision is a share between 0 and 1"
    if not 0 <= options.max_failures <= 1:
        return "--max-failures is a share between 0 and 1: 0.05 are 5 %"
    for name in ("max_p99", "min_throughput", "tolerance"):
        if not getattr(options, name) >= 0:
            return f"--{name.replace('_', '-')} must not be below 0"
    for name in ("timeout", "rate_step", "ramp_step"):
        if not getattr(options, name) > 0:
            return f"--{name.replace('_', '-')} must be above 0"
    if not 0 <= options.threshold <= 1:
        return "--threshold must be between 0 and 1"
    if not 2 <= options.batch <= BATCH:
        return f"--batch must be between 2 and {BATCH}, the server's largest"
    if options.top_k < 1 or options.labels < 0:
        return "--top-k must be at least 1, --labels at least 0"
    try:
        _rates(options.rate)
    except ArgumentTypeError as error:
        return f"--rate: {error}"
    return None


def rates_of(options: Namespace) -> list[float]:
    """Return the rates of arrivals, requests a second; none for the closed loop."""
    return [float(rate) for rate in options.rate.split(",") if rate]


def limits_of(options: Namespace) -> Limits:
    """Return the limits."""
    return Limits(options.max_p99, options.max_failures, options.min_throughput)


def _rates(text: str) -> str:
    """Check, and leave it a text: that is what the web page can hold."""
    try:
        valid = all(0 < float(rate) < float("inf") for rate in text.split(",") if text)
    except ValueError:
        valid = False
    if not valid:
        raise ArgumentTypeError(f"{text!r} is no list of requests a second, as in 10,20,40")
    return text
