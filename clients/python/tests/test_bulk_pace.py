"""How many requests a server gets at once."""

import asyncio

from ram_client.bulk.item import Settings
from ram_client.bulk.pace import Pace
from ram_client.bulk.servers import Servers


def answer(pace, seconds, rounds):
    for _ in range(rounds):
        for _ in range(max(8, pace.limit)):
            pace.answered(seconds)


def test_it_doubles_until_the_server_refuses_then_grows_by_one_per_round():
    pace = Pace(64)
    assert pace.limit == 2
    answer(pace, 0.1, rounds=3)
    assert pace.limit == 16
    pace.refused(sent_at=1, now=2)
    assert pace.limit == 11
    answer(pace, 0.1, rounds=2)
    assert pace.limit == 13


def test_refusals_of_one_round_count_once():
    pace = Pace(64)
    answer(pace, 0.1, rounds=4)
    for _ in range(10):
        pace.refused(sent_at=1, now=2)
    assert pace.limit == 22
    pace.refused(sent_at=3, now=4)
    assert pace.limit == 15


def test_it_shrinks_when_answers_take_much_longer_than_the_fastest():
    pace = Pace(64)
    answer(pace, 0.01, rounds=3)
    answer(pace, 0.05, rounds=1)
    assert pace.limit == 32, "full batches are later than single requests"
    answer(pace, 0.2, rounds=2)
    assert pace.limit < 32


def test_limits_hold():
    pace = Pace(5)
    answer(pace, 0.1, rounds=9)
    assert pace.limit == 5
    for second in range(30):
        pace.refused(sent_at=second, now=second + 0.5)
    assert pace.limit == 1


def test_a_server_that_was_away_begins_anew():
    pace = Pace(64)
    answer(pace, 0.1, rounds=4)
    pace.restart()
    assert pace.limit == 2


def full_servers(*names):
    """Servers that answer, each with as many requests as it may get."""
    nothing = Settings(None, None, (), None, False, False)
    servers = Servers(list(names), nothing, {}, most=8, wait=1, report=print)
    for server in servers._servers:
        server.is_here, server.in_flight = True, server.pace.limit
    return servers


async def test_a_server_with_room_is_used_though_another_has_too_much():
    """As after its return: it begins anew with little, while what it had still ends."""
    two = full_servers("a:1", "b:1")
    full, other = two._servers
    full.in_flight += 64
    waiting = asyncio.create_task(two._slot())
    await asyncio.sleep(0)
    other.in_flight -= 1
    two._wake()
    assert await asyncio.wait_for(waiting, 60) is other
    await two.close()


async def test_who_waits_for_a_server_is_served_before_who_comes_as_it_has_room():
    one = full_servers("a:1")
    (server,) = one._servers
    first = asyncio.create_task(one._slot())
    await asyncio.sleep(0)
    later = asyncio.create_task(one._slot())  # it runs once there is room, before the first wakes
    server.in_flight -= 1
    one._wake()
    assert await asyncio.wait_for(first, 60) is server
    assert not later.done() and server.in_flight == server.pace.limit
    later.cancel()
    await asyncio.wait([later])
    await one.close()


async def test_who_leaves_as_a_server_has_room_leaves_the_place_to_the_next():
    one = full_servers("a:1")
    (server,) = one._servers
    first, second = (asyncio.create_task(one._slot()) for _ in range(2))
    await asyncio.sleep(0)
    server.in_flight -= 1
    one._wake()
    first.cancel()
    assert await asyncio.wait_for(second, 60) is server
    assert server.in_flight == server.pace.limit
    await one.close()
