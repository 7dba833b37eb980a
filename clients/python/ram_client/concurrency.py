"""Many calls at once, whose results come in the order of what they were made for."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    concurrency: int,
    cancel: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """`gather_in_order` with threads: calls in their own, the items read in the caller's.

    cancel: is called when the generator is closed, or an exception leaves it: to end the calls
        that still run, for which it then waits.
    """
    _require_positive("concurrency", concurrency)
    threads = ThreadPoolExecutor(concurrency, thread_name_prefix="in order")
    calls: deque[Future[Result]] = deque()
    problem: Exception | None = None
    source = iter(items)
    is_over = False
    try:
        while calls or not is_over:
            if not is_over and len(calls) < concurrency:
                try:
                    calls.append(threads.submit(function, next(source)))
                except StopIteration:
                    is_over = True
                except Exception as error:
                    is_over, problem = True, error
            while calls and (is_over or len(calls) == concurrency or calls[0].done()):
                yield calls.popleft().result()
        if problem:
            raise problem
    finally:
        cancel()
        threads.shutdown(cancel_futures=True)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last, or that before an error of theirs, may be shorter."""
    _require_positive("batch", size)
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def async_in_batches(
    items: Iterable[Item] | AsyncIterable[Item], size: int
) -> AsyncGenerator[list[Item], None]:
    """The same of an asynchronous iterator, or of another, which a thread then reads."""
    _require_positive("batch", size)
    batch: list[Item] = []
    try:
        async for item in items if isinstance(items, AsyncIterable) else _in_thread(items):
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def gather_in_order(
    function: Callable[[Item], Coroutine[None, None, Result]],
    items: Iterable[Item] | AsyncIterable[Item],
    concurrency: int,
    ahead: int | None = None,
) -> AsyncGenerator[Result, None]:
    """The function's results in the order of the items, `concurrency` calls at a time.

    items: read no more than `ahead` of them (by default `concurrency`) beyond the last one whose
        result was taken. More of them keep the calls busy while an early one is slow.

    An exception, of a call or of the items, is raised in its turn, after the results before it.
    Closing the generator cancels what still runs.
    """
    _require_positive("concurrency", concurrency)
    slots, room = asyncio.Semaphore(concurrency), asyncio.Semaphore(ahead or concurrency)
    source = aiter(items) if isinstance(items, AsyncIterable) else _each(items)
    calls: asyncio.Queue[asyncio.Future[Result] | None] = asyncio.Queue()
    running: set[asyncio.Future[Result]] = set()

    async def call(item: Item) -> Result:
        async with slots:
            return await function(item)

    async def start_calls() -> None:
        """A task of its own: while the caller works on a result, the next calls start."""
        last: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        while True:
            await room.acquire()
            try:
                started = asyncio.create_task(call(await anext(source)))
            except StopAsyncIteration:
                break
            except asyncio.CancelledError:  # by the items themselves, or at the end
                last.cancel()
                calls.put_nowait(last)
                raise
            except Exception as error:
                last.set_exception(error)
                calls.put_nowait(last)
                break
            running.add(started)
            calls.put_nowait(started)
        calls.put_nowait(None)

    starting = asyncio.create_task(start_calls())
    try:
        while (next_call := await calls.get()) is not None:
            result = await next_call
            running.discard(next_call)
            room.release()
            yield result
    finally:
        left: list[asyncio.Future[Any]] = [starting, *running]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _in_thread(items: Iterable[Item]) -> AsyncIterator[Item]:
    source, end = iter(items), object()
    while True:
        item: Any = await asyncio.to_thread(next, source, end)
        if item is end:
            return
        yield item


async def _each(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item


def _require_positive(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name}: {number} is below 1")
