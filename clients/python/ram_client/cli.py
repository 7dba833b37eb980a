"""The command `ram-tag`: tags image files through a running server."""

import argparse
import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from . import __version__, streams
from .async_client import AsyncRamClient
from .errors import (
    AccessDenied,
    CertificateError,
    ImageUnreadable,
    InvalidRequest,
    RamError,
    Unavailable,
)
from .files import IMAGE_SUFFIXES, STDIN, find_images, read_paths
from .output import JsonArray, JsonLines, ProgressBar, Tables, print_error
from .tag import Tag
from .tls import metadata

SERVER_VARIABLE = "RAM_SERVER"
PROBE_SECONDS = 2.0
SETTINGS = ("threshold", "top_k", "exclude", "labels")  # apply to all files
# How the server's message begins; it names a label by its place.
SETTING_ERRORS = (*(f"{name}:" for name in SETTINGS), "labels[")

Item = TypeVar("Item")
Number = TypeVar("Number", int, float)
Result = TypeVar("Result")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    is_open = streams.prepare()
    options = _parser().parse_args(arguments)
    if not is_open:
        print_error("stdout is closed: there is nowhere to write results to")
        return 1
    try:
        return asyncio.run(_run(options))
    except BrokenPipeError:
        streams.silence_stdout()
    except OSError as error:  # a full disk, for one
        streams.silence_stdout()
        print_error(f"stdout: {error.strerror}")
    return 1


async def _run(options: argparse.Namespace) -> int:
    files: list[Path] = []
    failures = 0
    try:
        client = AsyncRamClient(**_connection(options))
    except (CertificateError, ValueError) as error:
        print_error(error)
        return 1
    for path in read_paths(options.paths):
        try:
            files += find_images(path, recursive=options.recursive)
        except ImageUnreadable as error:
            print_error(error)
            failures += 1
    output = options.output()
    try:
        failures += await _tag_files(client, files, output, options)
    except asyncio.CancelledError:  # Ctrl-C: what is done is done
        output.finish()
        raise
    except Unavailable as error:
        print_error(await _explain(options.server) or error)
        failures += 1
    except RamError as error:
        print_error(error)
        failures += 1
    output.finish()
    return 1 if failures else 0


def _connection(options: argparse.Namespace) -> dict[str, Any]:
    """Return the client's arguments."""
    names = ("server", "timeout", "tls", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(options, name) for name in names} | {"headers": dict(options.headers)}


async def _explain(server: str) -> str | None:
    """Return what is wrong with the address of a server that gRPC cannot reach; None if unknown."""
    host, _, port = server.rpartition(":")
    if not port.isdecimal():
        return None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            start = await reader.read(5)
            writer.close()
    except TimeoutError:
        return None
    except OSError:
        return (
            f"no server at {server}: start one with 'make serve', or name it with --server or "
            f"{SERVER_VARIABLE}"
        )
    if start != b"HTTP/":
        return None
    return f"{server} is an HTTP port; gRPC is usually one higher: --server {host}:{int(port) + 1}"


async def _tag_files(
    client: AsyncRamClient,
    files: list[Path],
    output: Tables | JsonLines | JsonArray,
    options: argparse.Namespace,
) -> int:
    """Tag and print all files; the number of those that failed."""
    failures = 0
    progress = ProgressBar(len(files))

    async def tag(file: Path) -> tuple[Path, list[Tag] | RamError]:
        settings = {name: getattr(options, name) for name in SETTINGS}
        try:
            return file, await client.tag(file, **settings)
        except RamError as error:
            return file, error
        finally:
            progress.advance()

    with progress:
        async with client, aclosing(_in_order(tag, files, options.concurrency)) as results:
            async for file, result in results:
                if isinstance(result, RamError):
                    await _raise_if_all_will_fail(client, result)
                    failures += 1
                with progress.hidden():
                    if isinstance(result, ImageUnreadable):
                        print_error(result)
                    elif isinstance(result, RamError):
                        print_error(f"{file}: {result}")
                    else:
                        output.add(file, result)
    return failures


async def _in_order(
    function: Callable[[Item], Coroutine[None, None, Result]],
    items: Iterable[Item],
    concurrency: int,
) -> AsyncGenerator[Result, None]:
    """The function's results in the order of the items, `concurrency` calls at a time.

    A slow call does not stop the others, but the number of results that wait for it is limited.
    """
    slots = asyncio.Semaphore(concurrency)

    async def call(item: Item) -> Result:
        async with slots:
            return await function(item)

    tasks: deque[asyncio.Task[Result]] = deque()
    try:
        for item in items:
            tasks.append(asyncio.create_task(call(item)))
            if len(tasks) == 8 * concurrency:
                yield await tasks[0]
                tasks.popleft()
        while tasks:
            yield await tasks[0]
            tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _raise_if_all_will_fail(client: AsyncRamClient, error: RamError) -> None:
    """Raise the error that all other files would meet too: one line is then enough."""
    if isinstance(error, InvalidRequest):
        if str(error).startswith(SETTING_ERRORS):
            raise error
    elif isinstance(error, AccessDenied | CertificateError) or (
        not isinstance(error, ImageUnreadable) and not await client.is_ready()
    ):
        raise error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Arguments are in the message as they were given: a terminal must not obey them."""
        super().error(streams.plain(message))


def _parser() -> argparse.ArgumentParser:
    suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
    parser = _Parser(
        prog="ram-tag",
        description="Tag images in English and Chinese, through a Triton server that serves RAM.",
        epilog="Results go to stdout in the order of the files, one line for each file that "
        "failed to stderr. Exit status: 0 if all files were tagged, 1 if not, 2 for wrong usage.",
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="FILE|FOLDER",
        help=f"an image, or a folder, of which these are tagged: {suffixes}; {STDIN} reads such "
        "paths from stdin, one per line",
    )
    add("--recursive", "-r", action="store_true", help="look into the subfolders of folders, too")
    add(
        "--server",
        default=os.environ.get(SERVER_VARIABLE) or "localhost:8001",
        metavar="HOST:PORT",
        help=f"Triton's gRPC address (default: {SERVER_VARIABLE} or localhost:8001)",
    )
    add = parser.add_argument_group("secured servers").add_argument
    add("--tls", action="store_true", help="use TLS; each of the next three does so too")
    add("--tls-ca", metavar="FILE", help="certificates to trust, as PEM (default: gRPC's own)")
    add("--tls-cert", metavar="FILE", help="this client's certificate, if the server wants one")
    add("--tls-key", metavar="FILE", help="and its key")
    add(
        "--header",
        dest="headers",
        type=_header,
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="send this with each request, such as a gateway's key; may be repeated",
    )
    tags = parser.add_argument_group("which tags")
    add = tags.add_argument
    add(
        "--threshold",
        type=_probability,
        metavar="0..1",
        help="the score a tag must exceed (default: each tag's own threshold)",
    )
    add("--top-k", type=_count, metavar="N", help="the N best of them (default: all)")
    add(
        "--exclude",
        action="append",
        metavar="NAME",
        help="leave out a tag, by English or Chinese name; may be repeated",
    )
    add(
        "--labels",
        type=_names,
        metavar="FILE",
        help="look only for the tags in this file, one name per line, instead of the model's own",
    )
    add = parser.add_argument_group("output").add_mutually_exclusive_group().add_argument
    add(
        "--json",
        dest="output",
        action="store_const",
        const=JsonArray,
        help="one JSON array, at the end (default: a table for people)",
    )
    add(
        "--jsonl",
        dest="output",
        action="store_const",
        const=JsonLines,
        help="one JSON object per file, a line each, as soon as it is known",
    )
    add = parser.add_argument_group("speed").add_argument
    add(
        "--concurrency",
        type=_positive_count,
        default=8,
        metavar="N",
        help="requests in flight at once (default: %(default)s)",
    )
    add(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds per file, retries included (default: %(default)g)",
    )
    parser.add_argument("--version", action="version", version=f"ram-tag {__version__}")
    parser.set_defaults(output=Tables)
    return parser


def _number(
    kind: Callable[[str], Number], accepts: Callable[[Number], bool], description: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return parse


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:VALUE")
    try:
        metadata({name: value.strip()})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("headers: ")) from error
    return name, value.strip()


def _names(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise argparse.ArgumentTypeError(f"{file}: {reason}") from error
    for number, line in enumerate(lines, 1):
        if "\t" in line.strip():
            raise argparse.ArgumentTypeError(f"{file}, line {number}: contains more than a name")
    return [line.strip() for line in lines if line.strip()]


_probability = _number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
_count = _number(int, lambda value: 0 <= value < 2**31, "a count")
_positive_count = _number(int, lambda value: 0 < value < 2**31, "a count from 1")
_seconds = _number(float, lambda value: 0 < value < float("inf"), "a number of seconds")
