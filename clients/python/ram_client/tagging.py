"""The run of `ram-tag`: each picture is read, sent, and its tags written, in the order given."""

import argparse
import asyncio
import os
from contextlib import aclosing
from typing import TypeAlias

from . import download, formats
from .async_client import AsyncRamClient
from .concurrency import gather_in_order
from .errors import AccessDenied, CertificateError, ImageUnreadable, InvalidRequest, RamError
from .files import Source, Url
from .image import ImageLike
from .output import Nothing, Output, ProgressBar, Summary
from .sinks.sink import TableFailed, WriteFailed, Writer
from .streams import print_error, print_line
from .tag import Tag

SETTINGS = ("threshold", "top_k", "exclude", "labels")  # apply to all files
# How the server's message begins; it names a label by its place.
SETTING_ERRORS = (*(f"{name}:" for name in (*SETTINGS, "where")), "labels[")
AHEAD = 8  # results per call in flight that may wait for a slow file's

Outcome: TypeAlias = list[Tag] | RamError | None
"""None of a picture that an earlier run tagged."""


async def tag_all(
    client: AsyncRamClient,
    sources: list[Source],
    output: Output,
    writer: Writer,
    summary: Summary,
    options: argparse.Namespace,
) -> None:
    """Tag all pictures, write and print their tags, and count what happened.

    Raises RamError for what all other pictures would meet, too.
    """
    decoding = asyncio.Semaphore(os.cpu_count() or 1)
    settings = {name: getattr(options, name) for name in SETTINGS}
    settings["where"] = options.where is not None

    async def tag(source: Source) -> tuple[Source, Outcome]:
        try:
            if options.skip_existing and await writer.has(source):
                return source, None
            return source, await client.tag(await _load(source, decoding, options), **settings)
        except RamError as error:
            return source, error
        finally:
            progress.count()

    ahead = AHEAD * options.concurrency
    progress = ProgressBar(len(sources), quiet=options.quiet)
    with progress:
        async with (
            client,
            aclosing(gather_in_order(tag, sources, options.concurrency, ahead)) as results,
        ):
            async for source, result in results:
                if result is None:
                    summary.skip()
                    continue
                if isinstance(result, RamError):
                    await _raise_if_all_will_fail(client, result)
                else:
                    result = await _write(source, result, writer, progress, options)
                if isinstance(result, RamError):
                    with progress.hidden():
                        _report(source, result, summary)
                    continue
                summary.add(result)
                if not isinstance(output, Nothing):
                    with progress.hidden():
                        output.add(source, result)


async def _load(
    source: Source, decoding: asyncio.Semaphore, options: argparse.Namespace
) -> ImageLike:
    if isinstance(source, Url):
        return await download.fetch(
            source, megabytes=options.max_megabytes, seconds=options.timeout
        )
    async with decoding:  # a raw file takes a processor, and much memory
        # A request with labels sends PNG.
        return await asyncio.to_thread(formats.load, source, small=options.labels is not None)


async def _write(
    source: Source,
    tags: list[Tag],
    writer: Writer,
    progress: ProgressBar,
    options: argparse.Namespace,
) -> list[Tag] | RamError:
    """The tags, if they were written."""
    try:
        if options.dry_run:
            lines = await writer.preview(source, tags)
            with progress.hidden():
                for line in lines:
                    print_line(line)
        else:
            await writer.add(source, tags)
    except TableFailed:
        raise
    except WriteFailed as error:
        return error
    return tags


def _report(source: Source, error: RamError, summary: Summary) -> None:
    message = f"{error}{formats.hint(str(error))}"
    summary.fail(message, source)
    has_name = isinstance(error, ImageUnreadable | WriteFailed)
    print_error(message if has_name else f"{source}: {message}")


async def _raise_if_all_will_fail(client: AsyncRamClient, error: RamError) -> None:
    """Raise the error that all other files would meet too: one line is then enough."""
    if isinstance(error, TableFailed):
        raise error
    if isinstance(error, InvalidRequest):
        if str(error).startswith(SETTING_ERRORS):
            raise error
    elif isinstance(error, AccessDenied | CertificateError) or (
        not isinstance(error, ImageUnreadable | WriteFailed) and not await client.is_ready()
    ):
        raise error
