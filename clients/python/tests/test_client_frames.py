"""Pixels over the wire, as far as it goes without a model."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing

import numpy as np
import pytest
from ram_client import AsyncRamClient, ImageUnreadable, InvalidRequest, RamClient, Timeout
from support import PATIENCE
from support.transport_server import TransportServer

FRAME = np.zeros((48, 64, 3), np.uint8)


def sent(server):
    (tensor,) = server.request.inputs
    return server.request.model_name, tensor.name, list(tensor.shape)


@pytest.fixture(params=["sync", "async"])
def tag(request, transport_server):
    """`client.tag_batch`, of either client, and of one client for all calls of a test."""
    if request.param == "sync":
        with RamClient(transport_server.address) as client:
            yield client.tag_batch
        return
    with asyncio.Runner() as runner:

        async def make():
            return AsyncRamClient(transport_server.address)

        client = runner.run(make())
        yield lambda *arguments, **options: runner.run(client.tag_batch(*arguments, **options))
        runner.run(client.close())


def test_the_size_is_asked_once(transport_server, tag):
    transport_server.image_size = 32
    assert [tag([FRAME, FRAME]) for _ in range(3)] == [[[], []]] * 3
    assert sent(transport_server) == ("ram_pixels", "pixels", [2, 32, 32, 3])
    assert transport_server.sizes_asked == 1


def test_a_server_without_the_model_gets_png(transport_server, tag):
    assert [tag([FRAME]) for _ in range(3)] == [[[]]] * 3
    assert sent(transport_server) == ("ram", "image", [1, 1])
    assert transport_server.request.raw_input_contents[0][4:8] == b"\x89PNG"
    assert transport_server.sizes_asked == 1


def test_files_do_not_ask_for_the_size(transport_server, tag):
    transport_server.image_size = 32
    tag([b"encoded", FRAME])
    assert sent(transport_server) == ("ram", "image", [2, 1])
    assert transport_server.sizes_asked == 0
    assert tag([]) == []


def test_a_server_that_has_another_model_by_now_gets_its_size(transport_server, tag):
    transport_server.image_size = 32
    tag([FRAME])
    transport_server.image_size = 64
    assert tag([FRAME]) == [[]]
    assert sent(transport_server) == ("ram_pixels", "pixels", [1, 64, 64, 3])
    assert transport_server.sizes_asked == 2


def test_what_is_wrong_with_an_array_is_told_before_anything_is_sent(transport_server, tag):
    transport_server.image_size = 32
    with pytest.raises(ImageUnreadable, match="channels first"):
        tag([FRAME.transpose(2, 0, 1)])
    assert transport_server.calls == 0


def test_the_note_of_triton_on_configs_is_left_out(transport_server):
    transport_server.image_size = 32
    with RamClient(transport_server.address) as client:
        client._image_size, client._is_size_known = 64, True
        client._find_image_size = lambda: 64
        with pytest.raises(InvalidRequest, match=r"got \[1, 64, 64, 3\]\.$"):
            client.tag(FRAME)


def test_frames_are_read_as_they_are_needed(transport_server):
    read = []

    def frames():
        for index in range(50):
            read.append(index)
            yield FRAME

    transport_server.image_size = 32
    with RamClient(transport_server.address) as client:
        for taken, tags in enumerate(client.tag_frames(frames(), concurrency=2, batch=3)):
            assert tags == []
            assert len(read) <= taken + 1 + 3 * 3  # its batch, and two more
    assert len(read) == 50


def test_closing_the_generator_cancels_the_requests(transport_server):
    """The server would not answer them at all."""
    transport_server.image_size = 32
    transport_server.answers, transport_server.answers_once_hanging = 1, True

    def frames():
        yield FRAME
        assert transport_server.called.wait(PATIENCE)  # the one that is answered
        yield from [FRAME] * 50

    with RamClient(transport_server.address, timeout=None) as client:
        with closing(client.tag_frames(frames(), concurrency=3)) as tagged:
            assert next(tagged) == []
        assert transport_server.calls <= 5


async def test_closing_the_asynchronous_generator_cancels_the_requests(transport_server):
    transport_server.image_size = 32
    transport_server.answers, transport_server.answers_once_hanging = 1, True

    async def frames():
        yield FRAME
        assert await asyncio.to_thread(transport_server.called.wait, PATIENCE)
        for _ in range(50):
            yield FRAME

    async with (
        AsyncRamClient(transport_server.address, timeout=None) as client,
        aclosing(client.tag_frames(frames(), concurrency=3)) as tagged,
    ):
        assert await anext(tagged) == []
    assert transport_server.calls <= 5


def test_a_frame_that_is_not_answered_is_told_in_its_turn(transport_server):
    transport_server.image_size = 32
    transport_server.answers = 2
    tagged = []
    with (
        RamClient(transport_server.address, timeout=60, retries=0) as client,
        pytest.raises(Timeout),
    ):
        for tags in client.tag_frames([FRAME] * 50, concurrency=1):
            tagged.append(tags)
            client.timeout = 1 if len(tagged) == 2 else 60
    assert tagged == [[], []]


class Silent(TransportServer):
    """Never says which size it takes; calls something when it is asked."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked
        self.hang()

    def ModelMetadata(self, request, context):
        self.asked()
        self._answering.wait()
        return super().ModelMetadata(request, context)


@pytest.fixture
def silent():
    servers = []

    def make(asked):
        servers.append(Silent(asked))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def test_threads_do_not_wait_for_each_others_timeouts_to_learn_the_size(silent):
    all_ask = threading.Barrier(4)
    server = silent(lambda: all_ask.wait(PATIENCE))
    with ThreadPoolExecutor(3) as threads, RamClient(server.address, timeout=PATIENCE) as client:
        tagged = [threads.submit(client.tag, FRAME) for _ in range(3)]
        all_ask.wait(PATIENCE)
        server.answer()
        assert [future.result() for future in tagged] == [[]] * 3


def test_the_size_is_asked_in_the_callers_thread_where_ctrl_c_ends_the_call(transport_server):
    transport_server.image_size, asked = 32, []
    with RamClient(transport_server.address) as client:
        find = client._find_image_size

        def find_image_size():
            asked.append(threading.current_thread())
            return find()

        client._find_image_size = find_image_size
        assert [*client.tag_frames([FRAME] * 3)] == [[]] * 3
    assert asked[0] is threading.current_thread()
