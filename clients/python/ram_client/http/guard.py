"""Who may ask, how much at once and how many at once: in front of all routes."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Refused, answer
from .settings import Settings

DISCARD_SECONDS = 5.0


class Guard:
    """Lets requests with a key through, a limited number at once, with bodies of limited size.

    A body is read whole before a route sees it. If its client goes away, work on it is cancelled,
    and Triton drops it too. Paths in `open_paths` are for everybody.
    """

    def __init__(self, app: ASGIApp, settings: Settings, open_paths: Iterable[str]) -> None:
        """Stands before `app`."""
        self._app, self._settings = app, settings
        self._open = tuple(open_paths)
        self._digests = [_digest(key) for key in settings.keys]
        self._working = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http" or scope["path"].startswith(self._open):
            await self._app(scope, receive, send)
            return
        try:
            self._admit(Headers(scope=scope))
        except Refused as refused:
            await self._refuse(refused, scope, receive, send)
            return
        self._working += 1
        is_counted = True

        def leave() -> None:
            nonlocal is_counted
            self._working -= is_counted
            is_counted = False

        async def send_on(message: Message) -> None:
            """Leave before the answer's end: whoever has all of it may ask again at once."""
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                leave()
            await send(message)

        try:
            if (body := await self._read(receive)) is not None:
                await self._work(body, scope, receive, send_on)
        except Refused as refused:
            await self._refuse(refused, scope, receive, send_on)
        finally:
            leave()

    def _admit(self, headers: Headers) -> None:
        if self._digests and not self._has_key(headers):
            raise Refused(
                401,
                "a key is needed: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
                {"WWW-Authenticate": "Bearer"},
            )
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "a compressed body is not read: send it uncompressed")
        if int(headers.get("content-length", "0")[:15]) > self._settings.max_bytes:
            raise self._too_large()
        if self._working >= self._settings.concurrency:
            raise Refused(503, f"{self._working} requests are being worked on: try again later")

    def _has_key(self, headers: Headers) -> bool:
        """Compare with all keys, in a time that depends neither on them nor on what is given."""
        given = _digest(_given_key(headers))
        return any([hmac.compare_digest(given, known) for known in self._digests])

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None if the client has closed the connection."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._settings.max_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            seconds = f"{self._settings.timeout:g} s"
            raise Refused(408, f"the body did not arrive within {seconds}") from error

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._settings.max_bytes:,} bytes")

    async def _work(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, unless the client goes away before it has."""
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await asyncio.Future()

        work = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            (result,) = await asyncio.gather(work, return_exceptions=True)
        if isinstance(result, Exception):
            raise result

    async def _refuse(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if refused.status != 408 and "expect" not in Headers(scope=scope):
            await _discard(receive)
        response = answer(scope, refused.status, str(refused), refused.headers)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


async def _discard(receive: Receive) -> None:
    """Read on for a while: whoever is still sending when it is answered loses the answer."""
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while (message := await receive())["type"] != "http.disconnect":
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _given_key(headers: Headers) -> str:
    """Return the key as a bearer, as a basic password (WD14), or as it is."""
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return value.strip() if scheme.lower() == "bearer" else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
