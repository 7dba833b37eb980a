"""All sinks of a run, behind one thread that writes while the server tags."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ..files import Source
from ..tag import Tag
from .sink import Sink

Result = TypeVar("Result")


class Writer:
    """Calls the sinks from a thread of its own, one call after the other. Raises WriteFailed."""

    def __init__(self, sinks: list[Sink]):
        """The sinks, in the order of writing: tables, which list what is done, come last."""
        self.sinks = sinks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ram-tag writer")

    async def open(self) -> None:
        """Open all sinks."""
        for sink in self.sinks:
            await self._call(sink.open)

    async def has(self, source: Source) -> bool:
        """Whether the picture's tags are in all sinks."""
        return await self._call(lambda: all(sink.has(source) for sink in self.sinks))

    async def add(self, source: Source, tags: list[Tag]) -> None:
        """Write a picture's tags into all sinks; the first that fails ends it."""
        for sink in self.sinks:
            await self._call(partial(sink.add, source, tags))

    async def preview(self, source: Source, tags: list[Tag]) -> list[str]:
        """What `add` would do, a line per sink."""
        return await self._call(lambda: [sink.preview(source, tags) for sink in self.sinks])

    def close(self) -> list[Exception]:
        """Finish all sinks, after what was begun; returns what went wrong."""
        problems = []
        for sink in self.sinks:
            try:
                self._thread.submit(sink.close).result()
            except Exception as error:
                problems.append(error)
        self._thread.shutdown()
        return problems

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
