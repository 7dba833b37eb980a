"""Pictures from the network, within limits of size, time and redirects."""

import asyncio
import ipaddress
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import Future
from typing import IO, Any

from . import __version__
from .errors import ImageUnreadable, reason_of
from .files import FETCHED, Url

MEGABYTE = 2**20
STEP = 64 * 1024
SILENCE = 10.0  # seconds without a byte
MAX_REDIRECTS = 5


async def fetch(url: Url, *, megabytes: float, seconds: float) -> bytes:
    """The bytes of a picture; raises ImageUnreadable, whose message begins with the address."""
    done: Future[bytes] = Future()
    done.set_running_or_notify_cancel()  # no longer cancelled: `work` sets it, whoever still waits

    def work() -> None:
        try:
            done.set_result(_read(url, int(megabytes * MEGABYTE), seconds))
        except Exception as error:
            done.set_exception(ImageUnreadable(f"{url}: {_reason(error)}"))

    # A daemon: Ctrl-C does not wait for a server that is silent.
    threading.Thread(target=work, daemon=True).start()
    try:
        # What `_read` cannot see between two bytes: a name that is looked up, headers that drip.
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(done)
    except TimeoutError as error:
        raise ImageUnreadable(f"{url}: {_too_late(seconds)}") from error


def _read(url: Url, most: int, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    opener = urllib.request.build_opener(_Redirects(url))
    request = urllib.request.Request(url, headers={"User-Agent": f"ram-tag/{__version__}"})
    with opener.open(request, timeout=SILENCE) as answer:
        length = answer.headers.get("Content-Length") or ""
        if length.isdecimal() and int(length) > most:
            raise ValueError(_too_large(most))
        data = bytearray()
        while chunk := answer.read1(STEP):
            data += chunk
            if len(data) > most:
                raise ValueError(_too_large(most))
            if time.monotonic() > end:
                raise ValueError(_too_late(seconds))
        if length.isdecimal() and len(data) < int(length):
            raise ValueError("the connection ended before the picture did")
    return bytes(data)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def __init__(self, url: Url):
        self._is_public = _is_public(url)

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Follow to http and https, and from the internet not into the user's own network."""
        if not FETCHED.match(newurl):
            raise ValueError("is redirected to something other than http or https")
        if self._is_public and not _is_public(newurl):
            raise ValueError("is redirected into your own network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_public(url: str) -> bool:
    """Whether all addresses of the URL's host are on the internet."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)


def _too_late(seconds: float) -> str:
    return f"has not arrived within {seconds:g} s"


def _too_large(most: int) -> str:
    return f"larger than {most / MEGABYTE:g} MiB (--max-megabytes)"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        first, *_ = error.reason.split("\n")  # that of a loop has three lines
        return f"HTTP {error.code} {first}".strip()
    if isinstance(error, urllib.error.URLError):
        return reason_of(error.reason) if isinstance(error.reason, OSError) else str(error.reason)
    if isinstance(error, TimeoutError):
        return f"silent for {SILENCE:g} s"
    return reason_of(error)
