"""Many calls at once: in order, bounded, and over when nobody wants more of them."""

import asyncio
import threading
from contextlib import aclosing

import pytest
from ram_client.concurrency import async_in_batches, gather_in_order, in_batches, run_in_order
from support import PATIENCE


async def test_results_keep_the_order_of_the_items():
    second_done = asyncio.Event()

    async def work(item):
        if item == 0:
            await second_done.wait()
        if item == 1:
            second_done.set()
        return item

    assert [result async for result in gather_in_order(work, range(5), 2)] == list(range(5))


async def test_no_more_calls_at_once_than_asked_for():
    running = most = 0

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        while most < 3:
            await asyncio.sleep(0)
        running -= 1
        return item

    assert len([result async for result in gather_in_order(work, range(100), 3)]) == 100
    assert most == 3


@pytest.mark.parametrize("ahead", [None, 5])
async def test_items_are_read_no_further_ahead_than_asked_for(ahead):
    taken, read = 0, []

    def items():
        for item in range(20):
            read.append(item)
            yield item

    async def work(item):
        return item

    async with aclosing(gather_in_order(work, items(), 3, ahead)) as results:
        async for _ in results:
            taken += 1
            assert len(read) - taken <= (ahead or 3)
            for _ in range(20):  # all that could run meanwhile does
                await asyncio.sleep(0)
            assert len(read) - taken <= (ahead or 3)
    assert taken == 20


async def test_a_result_does_not_wait_for_the_next_item():
    """Of a camera, say, whose next picture comes later."""
    more = asyncio.Event()

    async def items():
        yield 0
        await more.wait()
        yield 1

    async def work(item):
        return item

    async with aclosing(gather_in_order(work, items(), 8)) as results:
        assert await anext(results) == 0
        more.set()
        assert [result async for result in results] == [1]


@pytest.mark.parametrize("who", ["call", "items"])
async def test_an_exception_comes_in_its_turn(who):
    async def items():
        for item in range(9):
            if (who, item) == ("items", 4):
                raise LookupError(item)
            yield item

    started = []

    async def work(item):
        started.append(item)
        if (who, item) == ("call", 4):
            raise LookupError(item)
        await asyncio.sleep(0.01 if item < 4 else 0)  # the one that fails is done first
        return item

    results = []
    with pytest.raises(LookupError, match="4"):
        async for result in gather_in_order(work, items(), 3):
            results.append(result)
    assert results == [0, 1, 2, 3]
    assert max(started) < 8


async def test_closing_it_cancels_what_still_runs():
    running, cancelled = set(), set()
    both = asyncio.Event()

    async def work(item):
        if item == 0:
            await both.wait()
            return item
        running.add(item)
        if running >= {1, 2}:
            both.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.add(item)
            raise

    async with aclosing(gather_in_order(work, range(100), 3)) as results:
        assert await anext(results) == 0
    assert cancelled == running >= {1, 2}
    assert max(running) <= 3


def test_threads_keep_the_order_and_read_no_further_ahead():
    read, second_done = [], threading.Event()

    def items():
        for item in range(20):
            read.append(item)
            yield item

    def work(item):
        if item == 0:
            assert second_done.wait(PATIENCE)
        if item == 1:
            second_done.set()
        return item

    for taken, result in enumerate(run_in_order(work, items(), 3)):
        assert result == taken
        assert len(read) - taken <= 3 + 1  # this one, and those after it
    assert taken == 19


@pytest.mark.parametrize("who", ["call", "items"])
def test_an_exception_of_threads_comes_in_its_turn(who):
    def items():
        for item in range(9):
            if (who, item) == ("items", 4):
                raise LookupError(item)
            yield item

    def work(item):
        if (who, item) == ("call", 4):
            raise LookupError(item)
        return item

    results = []
    with pytest.raises(LookupError, match="4"):
        for result in run_in_order(work, items(), 3):
            results.append(result)
    assert results == [0, 1, 2, 3]


def test_closing_it_ends_the_threads():
    over, started = threading.Event(), threading.Semaphore(0)

    def work(item):
        if item == 0:
            assert started.acquire(timeout=PATIENCE)  # another one
        else:
            started.release()
            assert over.wait(PATIENCE)
        return item

    results = run_in_order(work, range(100), 3, over.set)
    assert next(results) == 0
    results.close()
    assert over.is_set()
    assert not [each for each in threading.enumerate() if each.name.startswith("in order")]


async def test_batches_and_an_error_after_them():
    def items():
        yield from range(5)
        raise LookupError

    batches = []
    with pytest.raises(LookupError):
        for batch in in_batches(items(), 2):
            batches.append(batch)
    assert batches == [[0, 1], [2, 3], [4]]
    batches = []
    with pytest.raises(LookupError):
        async for batch in async_in_batches(items(), 2):
            batches.append(batch)
    assert batches == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
    with pytest.raises(ValueError, match="batch: 0 is below 1"):
        list(in_batches([1], 0))
    with pytest.raises(ValueError, match="concurrency: 0 is below 1"):
        list(run_in_order(str, [1], 0))


def test_ctrl_c_while_the_only_call_is_waited_for_ends_what_runs():
    """The call raises it, without a signal: that could end the process of the tests."""
    over = threading.Event()

    def work(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run_in_order(work, [0], 1, over.set))
    assert over.is_set()


async def test_items_that_are_cancelled_end_it():
    async def items():
        yield 0
        raise asyncio.CancelledError

    async def work(item):
        return item

    async with aclosing(gather_in_order(work, items(), 2)) as results:
        assert await anext(results) == 0
        with pytest.raises(asyncio.CancelledError):
            await anext(results)
