"""Several servers as one: each at its own pace, and without those that are away.

A server gets images only after it has answered a small picture, with the run's own settings. One
that stops answering is left out, and is asked for that picture until it answers again. What an
image did not cause is tried again elsewhere; an image is given up only if it failed several times
by itself while the small picture is answered.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import PIL.Image

from ..async_client import AsyncRamClient
from ..connection import explain
from ..errors import (
    AccessDenied,
    CertificateError,
    InvalidRequest,
    ModelNotFound,
    RamError,
    ServerError,
    Timeout,
    Unavailable,
)
from ..image import encode
from .errors import BulkError
from .item import Answer, Columns, Settings
from .pace import Pace

ATTEMPTS = 2  # that a suspect fails by itself before it is given up
SILENCE = 1.0  # seconds without any answer, after which failures mean that the server is away
FAILURES = 3  # in a row
PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds before a refused image is sent again
AWAY, LONGEST_AWAY = 0.25, 2.0  # seconds between questions to a server that is away
WATCH = 0.2  # seconds
PICTURE_TIMEOUT = 20.0  # seconds: of the small picture, at most
HOPELESS = (AccessDenied, CertificateError, ModelNotFound, InvalidRequest)


class _Server:
    def __init__(self, name: str, client: AsyncRamClient, pace: Pace):
        self.name, self.client, self.pace = name, client, pace
        self.in_flight = 0
        self.is_here = self.was_here = False
        self.lost = asyncio.Event()
        self.failures = 0
        self.answered_at = time.monotonic()
        self.problem: RamError | None = None  # why it is away


class Servers:
    """Some servers, each of them possibly away.

    Args:
        names: `host:port` of each.
        settings: what is asked.
        connection: further arguments of AsyncRamClient.
        most: requests in flight per server, at most.
        wait: seconds without any server after which the run ends.
        report: takes a line that the user should see.
    """

    def __init__(
        self,
        names: list[str],
        settings: Settings,
        connection: Mapping[str, Any],
        *,
        most: int,
        wait: float,
        report: Callable[[str], None],
    ):
        self._settings, self._wait, self._report = settings, wait, report
        # Without retries of gRPC's own: a refusal is news for the pace, and another server may do.
        self._servers = [
            _Server(name, AsyncRamClient(name, retries=0, **connection), Pace(most))
            for name in dict.fromkeys(names)
        ]
        self._waiting: deque[asyncio.Future[_Server]] = deque()
        self._suspects = asyncio.Lock()
        self._picture = encode(PIL.Image.new("RGB", (8, 8), "grey"))
        self._columns: Columns | None = None
        self._away_since: float | None = None
        self._is_told = False  # that no server answers
        self._first = asyncio.Event()

    @asynccontextmanager
    async def looked_after(self) -> AsyncIterator[Columns]:
        """Look after the servers within the block, which begins when the first has answered.

        Yields what rows have, by that answer. Raises what ends the block, or what ends all:
        RamError. May be used again, however the last time ended: servers that are away have their
        whole time again.
        """
        if not self._any_here():
            self._away_since, self._is_told = time.monotonic(), False
        for server in self._servers:
            server.problem = None
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep(server)) for server in self._servers]
                keepers.append(tasks.create_task(self._watch()))
                await self._first.wait()
                assert self._columns
                yield self._columns
                for keeper in keepers:
                    keeper.cancel()
        except BaseExceptionGroup as group:  # the first is why the other tasks ended
            raise group.exceptions[0] from None

    def capacity(self) -> int:
        """How many requests may be in flight now."""
        return sum(server.pace.limit for server in self._servers if server.is_here)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.client.close()

    async def tag(self, image: bytes) -> Answer:
        """Have an image tagged, for as long as it takes.

        Raises the RamError that the image causes; what servers cause ends the whole run.
        """
        try:
            return await self._until_answered(image, suspect=False)
        except (Timeout, ServerError):
            # Those that may have brought a server down are tried one after the other: others that
            # were in flight with the one that did are then answered.
            async with self._suspects:
                return await self._until_answered(image, suspect=True)

    async def _until_answered(self, image: bytes, *, suspect: bool) -> Answer:
        """Send an image until it is answered or fails; a suspect until it must be the cause."""
        refusals = failures = 0
        while True:
            server = await self._slot()
            sent_at = time.monotonic()
            try:
                answer = await self._settings.ask(server.client, image)
            except InvalidRequest:
                self._answered(server)
                raise
            except Unavailable as error:
                self._failed(server, sent_at, error)
                refusals += 1
            except (Timeout, ServerError) as error:
                self._failed(server, sent_at, error)
                failures += 1
                if not suspect or failures >= 2 * ATTEMPTS:
                    raise
                if failures >= ATTEMPTS and await self._is_well(server):
                    raise
            except HOPELESS as error:
                self._lose(server, error)
            else:
                server.pace.answered(time.monotonic() - sent_at)
                self._answered(server)
                return answer
            finally:
                server.in_flight -= 1
                self._wake()
            if refusals:
                longest = min(PAUSE * 2 ** min(refusals - 1, 8), LONGEST_PAUSE)
                await asyncio.sleep(longest * random.uniform(0.5, 1))

    async def _slot(self) -> _Server:
        """Wait in turn until a server may get one more request, and count it in."""
        turn: asyncio.Future[_Server] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._wake()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it got a slot meanwhile, which is another's now
                turn.result().in_flight -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        """Give the slots that are free to those that have waited longest."""
        while self._waiting:
            free = [s for s in self._servers if s.is_here and s.in_flight < s.pace.limit]
            if not free:
                return
            turn = self._waiting.popleft()
            if not turn.done():
                server = min(free, key=lambda s: s.in_flight / s.pace.limit)
                server.in_flight += 1
                turn.set_result(server)

    def _answered(self, server: _Server) -> None:
        server.failures = 0
        server.answered_at = time.monotonic()

    def _failed(self, server: _Server, sent_at: float, error: RamError) -> None:
        now = time.monotonic()
        if not isinstance(error, ServerError):
            server.pace.refused(sent_at, now)
        server.failures += 1
        if server.failures >= FAILURES and now - server.answered_at > SILENCE:
            self._lose(server, error)

    def _lose(self, server: _Server, error: RamError) -> None:
        server.problem = error
        if not server.is_here:
            return
        server.is_here = False
        server.lost.set()
        if len(self._servers) > 1:
            self._report(f"{server.name} is left out until it answers again: {error}")
        if not self._any_here():
            self._away_since = time.monotonic()

    def _any_here(self) -> bool:
        return any(server.is_here for server in self._servers)

    async def _is_well(self, server: _Server) -> bool:
        """Ask for the small picture: whether it was not the server that an image failed for."""
        try:
            await self._ask_for_picture(server)
        except RamError as error:
            self._lose(server, error)
            return False
        self._answered(server)
        return True

    async def _ask_for_picture(self, server: _Server) -> Answer:
        try:
            async with asyncio.timeout(PICTURE_TIMEOUT):
                return await self._settings.ask(server.client, self._picture)
        except TimeoutError as error:
            raise Timeout(f"{server.name}: no answer within {PICTURE_TIMEOUT:g} s") from error

    async def _keep(self, server: _Server) -> None:
        """Bring a server in when it answers, again and again; ends with one that never will."""
        while True:
            pause = AWAY
            while not server.is_here:
                try:
                    self._bring_in(server, await self._ask_for_picture(server))
                except RamError as error:
                    explained = isinstance(error, Unavailable) and await explain(server.name)
                    server.problem = Unavailable(explained) if explained else error
                    if isinstance(error, HOPELESS) and not server.was_here:
                        self._give_up(server)
                        return
                    await asyncio.sleep(pause * random.uniform(0.5, 1))
                    pause = min(2 * pause, LONGEST_AWAY)
            await server.lost.wait()
            await asyncio.sleep(AWAY)

    def _bring_in(self, server: _Server, answer: Answer) -> None:
        columns = self._settings.columns(answer)
        if self._columns not in (None, columns):
            raise InvalidRequest("it serves another model: its vectors have another length")
        self._columns = columns
        if self._away_since is not None and self._is_told:
            self._report(f"{server.name} answers")
        server.pace.restart()
        server.lost.clear()
        server.is_here = server.was_here = True
        self._away_since = None
        self._is_told = False
        self._answered(server)
        self._first.set()
        self._wake()

    def _give_up(self, server: _Server) -> None:
        assert server.problem is not None
        if self._servers == [server]:  # it stays: whoever starts again asks it again
            raise server.problem
        self._servers.remove(server)
        self._report(f"{server.name} is left out: {server.problem}")

    async def _watch(self) -> None:
        """Report that no server answers, and end the run when that lasts."""
        while True:
            await asyncio.sleep(WATCH)
            if self._away_since is None:
                continue
            seconds = time.monotonic() - self._away_since
            problem = next((s.problem for s in self._servers if s.problem), None)
            if problem and not self._is_told:
                self._is_told = True
                self._report(f"waiting for a server, up to {self._wait:g} s (--wait): {problem}")
            if problem and seconds > self._wait:
                raise BulkError(f"no server for {self._wait:g} s: {problem}")
