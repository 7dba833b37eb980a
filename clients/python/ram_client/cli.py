"""The command `ram-tag`: tags pictures through a running server."""

import argparse
import asyncio
import time

from . import formats, streams
from .arguments import connection
from .async_client import AsyncRamClient
from .connection import explain
from .errors import CertificateError, ImageUnreadable, RamError, Unavailable
from .files import FETCHED, Source, Url, find_images, read_paths
from .options import parse
from .output import Nothing, Summary, watches_stderr
from .sinks.captions import Captions
from .sinks.overlays import Overlays
from .sinks.sidecars import Sidecars
from .sinks.sink import Sink, WriteFailed, Writer
from .sinks.sqlite import Database
from .sinks.tables import CsvTable, ParquetTable
from .streams import print_error, print_line
from .tagging import tag_all


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    is_open = streams.prepare()
    options = parse(arguments)
    if not is_open and (options.output is not Nothing or options.dry_run):
        print_error("stdout is closed: there is nowhere to write results to")
        return 1
    try:
        if options.xmp_remove:
            return _remove(options)
        return asyncio.run(_run(options))
    except BrokenPipeError:
        streams.silence_stdout()
    except OSError as error:  # a full disk, for one
        streams.silence_stdout()
        print_error(f"stdout: {error.strerror}")
    return 1


async def _run(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    try:
        client = AsyncRamClient(**connection(options))
        writer = Writer(_sinks(options))
    except (CertificateError, ValueError, WriteFailed) as error:
        print_error(error)
        return 1
    summary = Summary()
    sources = _sources(options, summary)
    output = options.output()
    try:
        if not options.dry_run:
            await writer.open()
        await tag_all(client, sources, output, writer, summary, options)
    except asyncio.CancelledError:  # Ctrl-C: what is done is done
        output.finish()
        raise
    except Unavailable as error:
        _fail(await explain(options.server) or error, summary)
    except RamError as error:
        _fail(error, summary)
    finally:
        for problem in writer.close():
            _fail(problem, summary)
        if not options.quiet and (options.has_sinks or watches_stderr(len(sources))):
            for line in summary.lines(time.monotonic() - begin):
                print_error(line)
    output.finish()
    return 1 if summary.counts["failed"] else 0


def _remove(options: argparse.Namespace) -> int:
    """Take tags out of sidecars, and print a line for each that changes."""
    summary = Summary()
    try:
        sidecars = Sidecars(
            name=options.xmp_name, prefix=options.xmp_prefix, language=options.language
        )
    except WriteFailed as error:
        print_error(error)
        return 1
    for source in _sources(options, summary):
        try:
            if line := sidecars.remove(source, dry_run=options.dry_run):
                print_line(line)
        except WriteFailed as error:
            _fail(error, summary)
    return 1 if summary.counts["failed"] else 0


def _sources(options: argparse.Namespace, summary: Summary) -> list[Source]:
    """The pictures that a command line means; what it cannot mean gets a line each."""
    sources: list[Source] = []
    for path in read_paths(options.paths, null=options.null):
        if options.urls and FETCHED.match(path):
            sources.append(Url(path))
            continue
        problems: list[ImageUnreadable] = []
        try:
            sources += find_images(
                path,
                recursive=options.recursive,
                suffixes=formats.suffixes(),
                problems=problems,
            )
        except ImageUnreadable as error:
            problems.append(error)
        for problem in problems:
            _fail(problem, summary)
    return sources


def _fail(error: object, summary: Summary) -> None:
    summary.fail(error)
    print_error(error)


def _sinks(options: argparse.Namespace) -> list[Sink]:
    """What the options name; files per picture first, since tables list what is done."""
    sinks: list[Sink] = []
    if options.xmp:
        sinks.append(
            Sidecars(name=options.xmp_name, prefix=options.xmp_prefix, language=options.language)
        )
    if options.txt:
        sinks.append(
            Captions(
                suffix=options.txt_suffix,
                separator=options.separator,
                append=options.append,
                language=options.language,
            )
        )
    if options.where:
        sinks.append(Overlays(options.where))
    if options.csv:
        sinks.append(CsvTable(options.csv))
    if options.parquet:
        sinks.append(ParquetTable(options.parquet))
    if options.sqlite:
        sinks.append(Database(options.sqlite))
    return sinks
