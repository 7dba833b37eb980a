"""The command `ram-bulk`: tags any number of images into a folder, and goes on where it stopped."""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import __version__, arguments, protocol, streams
from ..connection import SERVER_VARIABLE
from ..errors import RamError
from ..files import STDIN
from .errors import arrow_modules
from .item import Settings
from .listing import Listing, write_listing
from .output import OutputFolder
from .places import absolute
from .progress import ProgressReport, report, summary
from .run import Run
from .servers import Servers
from .shards import ImageColumns
from .sinks import FORMATS
from .work import Work

LAYOUT = 1  # of the output folder
# Options that change the output: a run that goes on needs the same.
SETUP = (
    *("format", "shard_size", "image_column", "key_column"),
    *("threshold", "top_k", "exclude", "labels", "embedding", "logits"),
)
STOPPED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: all images have a row; 1: the run ended before that; 2: wrong usage. Raises KeyboardInterrupt
    when it was interrupted, after it has closed what it was writing.
    """
    streams.prepare()
    options = _options(arguments)
    try:
        return _run(options)
    except (RamError, ValueError) as error:
        report(error)
        return STOPPED


def _run(options: argparse.Namespace) -> int:
    if options.format == "parquet":
        arrow_modules("--format parquet")
    suffix = FORMATS[options.format][0]
    sources = [source if source == STDIN else absolute(source) for source in options.sources]
    setup = {"layout": LAYOUT, "sources": sources} | _made(options)
    folder = OutputFolder(Path(options.output), suffix, setup, restart=options.restart)
    with closing(folder) as output:
        columns = ImageColumns(options.image_column, options.key_column)
        if not output.listing.exists():
            write_listing(output.listing, options.sources, columns)
        with closing(Listing(output.listing)) as listing:
            keep_images = options.format == "webdataset"
            work = Work(listing, output, options.shard_size, columns, keep_images)
            return asyncio.run(_tag(options, work))


async def _tag(options: argparse.Namespace, work: Work) -> int:
    output = work.output
    made = {name: json.dumps(value, ensure_ascii=False) for name, value in _made(options).items()}
    servers = Servers(
        options.server,
        Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)}),
        {name: value for name, value in arguments.connection(options).items() if name != "server"},
        most=options.concurrency,
        wait=options.wait,
        report=report,
    )
    progress = ProgressReport(output.totals().images, work.total())
    run = Run(
        work,
        servers,
        file_format=options.format,
        notes={"ram_client": __version__} | {f"ram_{name}": made[name] for name in made},
        advanced=progress.advance,
    )
    try:
        with progress, _interruptible():
            await run.run()
    except (asyncio.CancelledError, RamError) as error:
        if isinstance(error, RamError):
            report(error)
        kept = f"{output.totals().images:,} images are in {output.path}"
        report(f"stopped: {kept}; the same command goes on")
        if isinstance(error, asyncio.CancelledError):
            raise
        return STOPPED
    finally:
        await servers.close()
    parts, twice = output.number_of_parts(), work.listing.duplicates
    for line in summary(output.totals(), run.images, run.seconds, parts, twice):
        try:
            print(streams.plain(line), flush=True)
        except OSError:  # a closed pipe: all is done
            streams.silence_stdout()
            break
    return 0


class _interruptible:
    """SIGTERM ends the run as Ctrl-C does."""

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    def __exit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def _made(options: argparse.Namespace) -> dict[str, Any]:
    """What the output is made with."""
    return {name: getattr(options, name) for name in SETUP} | {"model": protocol.MODEL}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)  # sources may be on both sides
    if options.labels is not None and (options.embedding or options.logits):
        parser.error("--labels cannot be combined with --embedding or --logits")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        prog="ram-bulk",
        description="Tag any number of images into a folder of parquet, JSON lines or webdataset "
        "shards, through one or several servers. Stopped at any moment, the same command goes on.",
        epilog="Failures are rows with a reason. Exit status: 0 if all images have a row, 1 if the "
        "run ended before that, 2 for wrong usage.",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a folder of images or shards, a list of either (.txt, .lst), a webdataset shard "
        f"(.tar), parquet, an image, or an address of these; {STDIN} reads a list from stdin",
    )
    add("--output", "-o", required=True, metavar="FOLDER", help="where parts go; a new folder")
    add("--restart", action="store_true", help="remove what an earlier run wrote there")
    _add_output(parser.add_argument_group("output").add_argument)
    _add_servers(parser.add_argument_group("servers").add_argument)
    arguments.add_tags(parser.add_argument_group("which tags").add_argument)
    parser.add_argument("--version", action="version", version=f"ram-bulk {__version__}")
    return parser


def _add_output(add: Callable[..., Any]) -> None:
    add(
        "--format",
        choices=FORMATS,
        default="parquet",
        help="format of the parts (default: %(default)s)",
    )
    add(
        "--shard-size",
        type=arguments.positive_count,
        default=1000,
        metavar="N",
        help="images per part; one in progress is lost when the run is killed (default: "
        "%(default)s)",
    )
    add("--embedding", action="store_true", help="a column with the image's embedding")
    add("--logits", action="store_true", help="a column with the logits of all tags")
    add("--image-column", metavar="NAME", help="parquet column of images, or of their paths")
    add(
        "--key-column",
        metavar="NAME",
        help="parquet column of keys (default: key or id, or the row's number)",
    )


def _add_servers(add: Callable[..., Any]) -> None:
    add(
        "--server",
        type=_servers,
        default=os.environ.get(SERVER_VARIABLE) or "localhost:8001",
        metavar="HOST:PORT,…",
        help=f"gRPC addresses; some may be away (default: {SERVER_VARIABLE} or localhost:8001)",
    )
    add(
        "--concurrency",
        type=arguments.positive_count,
        default=64,
        metavar="N",
        help="requests in flight per server, at most: fewer if it cannot take them (default: "
        "%(default)s)",
    )
    add(
        "--timeout",
        type=arguments.seconds,
        default=60.0,
        metavar="S",
        help="seconds per request (default: %(default)g)",
    )
    add(
        "--wait",
        type=arguments.seconds,
        default=180.0,
        metavar="S",
        help="seconds without any server before the run ends (default: %(default)g)",
    )
    arguments.add_security(add)


def _servers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT,…")
    return names
