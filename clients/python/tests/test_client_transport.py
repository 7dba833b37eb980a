"""Retries, timeouts and lost servers, over real gRPC; the server is a small one that misbehaves."""

import asyncio

import pytest
from ram_client import AsyncRamClient, RamClient, Timeout, Unavailable, connection

LARGER_THAN_GRPCS_RETRY_BUFFER = bytes(1 << 20)


class Blocking:
    """The async client behind the sync client's methods, so that each test runs with both."""

    def __init__(self, *arguments, **options):
        self._runner = asyncio.Runner()
        self._client = AsyncRamClient(*arguments, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
        self._runner.close()


@pytest.fixture(params=[RamClient, Blocking], ids=["sync", "async"])
def client_class(request):
    return request.param


@pytest.mark.parametrize("image", [b"small", LARGER_THAN_GRPCS_RETRY_BUFFER], ids=["small", "1 MB"])
def test_unavailable_is_tried_again(client_class, transport_server, image):
    transport_server.failures = 2
    with client_class(transport_server.address) as client:
        assert client.tag(image) == []
    assert transport_server.calls == 3


def test_retries_end(client_class, transport_server):
    transport_server.failures = 10
    with (
        client_class(transport_server.address, retries=1) as client,
        pytest.raises(Unavailable, match=f"^{transport_server.address}: Exceeds maximum queue"),
    ):
        client.tag(b"x")
    assert transport_server.calls == 2


ALWAYS = 10**6


def test_a_server_that_stays_full_gets_each_call_about_once_and_answers_fill_the_budget_again(
    client_class, transport_server, monkeypatch
):
    monkeypatch.setattr(connection, "FIRST_WAIT", "0.01s")
    transport_server.failures = ALWAYS
    calls, free = 120, 50  # half of the budget's tokens
    with client_class(transport_server.address) as client:
        for _ in range(calls):
            with pytest.raises(Unavailable):
                client.tag(b"x")
        # Retries waited for meanwhile are not taken back: those of one call.
        assert calls < transport_server.calls <= calls + free + 4
        transport_server.failures = 0
        for _ in range(600):
            client.tag(b"x")
        transport_server.calls, transport_server.failures = 0, 1
        assert client.tag(b"x") == []
    assert transport_server.calls == 2


async def test_many_calls_at_once_share_the_budget(transport_server):
    transport_server.failures = ALWAYS
    async with AsyncRamClient(transport_server.address) as client:
        results = await asyncio.gather(
            *(client.tag(b"x") for _ in range(200)), return_exceptions=True
        )
    assert all(isinstance(result, Unavailable) for result in results)
    assert transport_server.calls < 2 * 200


def test_the_server_is_told_how_long_the_client_waits(client_class, transport_server):
    with client_class(transport_server.address, timeout=62.5) as client:
        client.tag(b"x")
    assert transport_server.request.parameters["timeout"].int64_param == 62_500_000


def test_headers_go_with_each_call(client_class, transport_server):
    with client_class(transport_server.address, headers={"X-Api-Key": "secret"}) as client:
        client.tag(b"x")
    assert transport_server.headers["x-api-key"] == "secret"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"a key": "x"}, "'a key' is not a header's name"),
        ({"": "x"}, "'' is not a header's name"),
        ({"key-bin": "x"}, "'key-bin' is not"),
        ({"key": "猫"}, "the value of 'key' contains more than printable ASCII"),
        ({"key": "a\nb"}, "the value of 'key'"),
    ],
)
def test_what_no_header_can_have_is_refused_at_once(client_class, headers, message):
    with pytest.raises(ValueError, match=f"^headers: {message}"):
        client_class(headers=headers)


def test_no_retries_on_request(client_class, transport_server):
    transport_server.failures = 1
    with client_class(transport_server.address, retries=0) as client, pytest.raises(Unavailable):
        client.tag(b"x")
    assert transport_server.calls == 1


def test_the_timeout_bounds_all_attempts(client_class, transport_server):
    transport_server.failures = 10
    with (
        client_class(transport_server.address, timeout=0.5) as client,
        pytest.raises((Timeout, Unavailable)),
    ):
        client.tag(b"x")
    assert transport_server.calls < 5  # all of them would take 3 s


def test_a_server_that_never_answers_times_out(client_class, transport_server):
    transport_server.hang()
    with (
        client_class(transport_server.address, timeout=0.3) as client,
        pytest.raises(Timeout, match=f"^{transport_server.address}: no answer within 0.3 s$"),
    ):
        client.tag(b"x")
    assert transport_server.calls <= 1


def test_a_server_that_is_not_there(client_class, unreachable):
    with client_class(unreachable, retries=0) as client:
        with pytest.raises(Unavailable, match=f"^{unreachable}: .*refused"):
            client.tag(b"x")
        with pytest.raises(Unavailable):
            client.is_ready()


def test_readiness(client_class, transport_server):
    with client_class(transport_server.address) as client:
        assert client.is_ready()


def test_no_images_need_no_server(client_class, unreachable):
    with client_class(unreachable) as client:
        assert client.tag_batch([]) == []


def test_more_retries_than_grpc_makes_are_refused(client_class):
    with pytest.raises(ValueError, match="retries: 5"):
        client_class(retries=5)


def test_an_async_client_may_be_made_before_its_loop(transport_server):
    client = AsyncRamClient(transport_server.address)

    async def use():
        async with client:
            return await client.tag(b"x")

    assert asyncio.run(use()) == []


async def test_a_cancelled_call_ends_at_once(transport_server):
    transport_server.hang()
    async with AsyncRamClient(transport_server.address) as client:
        call = asyncio.create_task(client.tag(b"x"))
        await asyncio.to_thread(transport_server.called.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
