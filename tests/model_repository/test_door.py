"""What waits for the encoder on a CPU is counted, and limited at the doors."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ram_triton.server_code import backlog, preprocess
from ram_triton.server_code import door as door_code
from support import PATIENCE
from support.requests_to_ram import ask, infer_inputs

Encoder, Door, MOST = backlog.Encoder, door_code.Door, door_code.MOST


class Request:
    """A number of images, as far as a door looks."""

    def __init__(self, images):
        self.shape = lambda: (images, 1)
        self.inputs = lambda: [self]


class Response:
    def __init__(self, is_error):
        self.has_error = lambda: is_error


def hand_on(door, *sizes, errors=0):
    """Pass requests on, each with a number of images; the last ones fail."""
    responses = [Response(index >= len(sizes) - errors) for index in range(len(sizes))]
    assert door.pass_on([Request(size) for size in sizes], lambda: responses) == responses


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


@pytest.fixture
def never_rests(monkeypatch):
    """No image is forgotten, and only counts matter: a pause looks like a slow encoder."""
    monkeypatch.setattr(backlog, "REST", 10**18)
    monkeypatch.setattr(door_code, "REST", 10**18)
    monkeypatch.setattr(door_code, "LONGEST", float("inf"))


@pytest.fixture
def encoder(folder):
    return Encoder(folder)


@pytest.fixture
def doors(folder):
    return [Door(folder, patience=0) for index in range(4)]


def number_waiting(participant):
    """Return at how many doors a batch waits, as all processes see it."""
    return np.count_nonzero(participant._counts.read()["waits_since"])


def are_open(doors):
    (answer,) = {door.wait_for_room() for door in doors}
    return answer


def test_doors_are_closed_while_a_batch_waits_and_open_when_it_is_taken(
    never_rests, encoder, doors
):
    hand_on(doors[0], 16, 15)
    assert are_open(doors)
    hand_on(doors[1], 32)
    assert not are_open(doors)
    with encoder.taking(32):
        assert are_open(doors)
        hand_on(doors[2], 1)
        assert not are_open(doors)  # 32 wait again
    assert not are_open(doors)
    with encoder.taking(32):
        pass
    assert are_open(doors)


def test_images_that_another_door_works_on_count_and_refused_ones_do_not(
    never_rests, encoder, doors
):
    def answer():
        assert not doors[1].wait_for_room()
        return [Response(is_error=True)]

    doors[0].pass_on([Request(32)], answer)
    assert are_open(doors)
    hand_on(doors[0], 31, 32, errors=1)
    assert are_open(doors)


def test_a_door_opens_as_soon_as_there_is_room(never_rests, encoder, doors, folder):
    hand_on(doors[0], 32)
    patient = Door(folder, patience=60)
    found = []
    waiting = threading.Thread(target=lambda: found.append(patient.wait_for_room()))
    waiting.start()
    with encoder.taking(1):
        waiting.join(60)
    assert found == [True]


def test_what_finds_no_room_in_time_is_refused(never_rests, encoder, doors):
    doors[1].require_room()
    hand_on(doors[0], 32)

    def answer():
        with pytest.raises(Exception, match="the encoder has all it can do"):
            doors[1].require_room()
        return [Response(is_error=True)]

    doors[1].pass_on([Request(1)], answer)
    with encoder.taking(32):
        pass
    hand_on(doors[1], 1)
    doors[1].require_room()


def test_images_that_never_come_are_forgotten_once_the_encoder_rests(monkeypatch, encoder, doors):
    hand_on(doors[0], 32)  # their clients leave
    monkeypatch.setattr(backlog, "REST", 0)
    monkeypatch.setattr(door_code, "REST", 0)
    assert are_open(doors)
    with encoder.taking(1):
        monkeypatch.setattr(backlog, "REST", 10**18)
        monkeypatch.setattr(door_code, "REST", 10**18)
        assert are_open(doors)
        hand_on(doors[0], 31)
        assert are_open(doors)


def test_images_that_came_through_no_door_are_not_counted(never_rests, encoder, doors):
    with encoder.taking(1000):
        hand_on(doors[0], 32)
        assert not are_open(doors)


def test_no_more_than_some_seconds_of_a_slow_encoders_work_may_wait(
    never_rests, encoder, doors, monkeypatch
):
    monkeypatch.setattr(door_code, "LONGEST", 1e-9)
    assert are_open(doors)
    hand_on(doors[0], 2)
    assert are_open(doors)  # its pace is not known yet
    with encoder.taking(1):
        assert are_open(doors)
    assert not are_open(doors)
    with encoder.taking(1):
        assert are_open(doors)


@pytest.fixture
def killed_door(folder):
    """The counts after a process was killed: it had handed 3 images on, and worked on a batch."""
    code = f"""
from ram_triton.server_code import door
mine = door.Door({folder!r}, patience=60)
mine._counts.own["images"] += 3
mine.wait_for_room(32)
print("in", flush=True)
mine.wait_for_room(32)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in\n"
        yield process
        process.kill()


def test_what_a_killed_door_worked_on_or_waited_with_is_forgotten(
    never_rests, encoder, killed_door, folder
):
    door = Door(folder, patience=0)
    assert not door.wait_for_room()
    killed_door.kill()
    killed_door.wait(PATIENCE)
    assert door.wait_for_room()
    hand_on(door, 28)
    assert door.wait_for_room()
    hand_on(door, 1)
    assert not door.wait_for_room()
    with encoder.taking(1):
        assert door.wait_for_room()


def test_a_killed_encoder_is_no_limit_and_the_next_one_goes_on(never_rests, doors, folder):
    hand_on(doors[0], 32)
    code = f"""
from ram_triton.server_code import backlog
with backlog.Encoder({folder!r}).taking(1):
    print("in", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == b"in\n"
        hand_on(doors[0], 1)
        assert not are_open(doors)
        process.kill()
        process.wait(PATIENCE)
    assert are_open(doors)
    encoder = Encoder(folder)
    assert not are_open(doors)
    with encoder.taking(1):
        assert are_open(doors)


def test_the_last_batch_is_behind_all_that_other_doors_work_on(never_rests, doors):
    """A picture of the drain's does not overtake a large batch."""

    def answer():
        assert doors[1].wait_for_room()
        assert not doors[1].wait_for_room(is_last=True)
        return [Response(is_error=False)]

    doors[0].pass_on([Request(1)], answer)
    assert doors[1].wait_for_room(is_last=True)


def test_doors_open_in_the_order_in_which_they_came(never_rests, encoder, folder):
    """So all that came before a picture of the drain's is answered when that is."""
    hand_on(Door(folder), 32)
    order, threads = [], []
    for number in range(4):
        door = Door(folder, patience=60)

        def answer(number=number):
            order.append(number)
            return [Response(is_error=True)]

        threads.append(threading.Thread(target=door.pass_on, args=([Request(32)], answer)))
        threads[-1].start()
        while number_waiting(encoder) == number:  # until the others can see it
            assert threads[-1].is_alive()
    with encoder.taking(32):
        for thread in threads:
            thread.join(60)
    assert order == [0, 1, 2, 3]


@pytest.mark.parametrize("place", [None, "missing"])
def test_without_counts_or_an_encoder_that_counts_there_is_no_limit(place, folder, doors):
    hand_on(doors[0], 1000)
    assert are_open(doors)  # the encoder is TensorRT's
    where = place and f"{folder}/{place}"
    lonely, encoder = Door(where), Encoder(where)
    hand_on(lonely, 1000)
    with encoder.taking(1):
        assert lonely.wait_for_room()
    lonely.require_room()


def test_a_batch_without_rows_is_counted_as_nothing(never_rests, encoder, doors):
    with encoder.taking(0):
        pass
    hand_on(doors[0], 31)
    assert are_open(doors)


def test_more_instances_than_rows_are_not_counted(folder, doors):
    others = [Door(folder) for index in range(backlog.ROWS)]
    hand_on(others[-1], 5)
    assert others[-1].wait_for_room()


@pytest.fixture
def held(server):
    """A door of the served model's that works on a batch, so that all others are closed."""
    door = Door(str(server.folder))
    assert door.wait_for_room(MOST)
    yield door
    door.release()


def longest_wait(door):
    """Return for how many seconds a batch has waited at any door."""
    began = door._counts.read()["waits_since"]
    return (time.monotonic_ns() - began[began > 0].min(initial=sys.maxsize)) / 1e9


def test_served_pictures_and_pixels_wait_before_they_are_worked_on(held, client, pictures):
    pixels = np.stack([preprocess(picture, 96) for picture in pictures[:2]])
    with ThreadPoolExecutor(2) as threads:
        for _ in range(5):  # a door gives up after a while, and the machine may stall for as long
            waiting = [threads.submit(ask, client, images) for images in (pictures[:2], pixels)]
            while number_waiting(held) < 2 and not any(future.done() for future in waiting):
                time.sleep(0.01)
            have_waited = not any(future.done() for future in waiting)
            held.release()
            if have_waited and not any(future.exception() for future in waiting):
                break
            assert held.wait_for_room(MOST)
        alone, of_pixels = (future.result() for future in waiting)
    assert have_waited
    assert (alone["tag_ids"] == of_pixels["tag_ids"]).all()


def test_a_timeout_that_passes_before_the_door_is_told(held, client, pictures):
    inputs, told = infer_inputs(pictures[:1]), []
    with ThreadPoolExecutor(1) as threads:
        for _ in range(5):  # Triton's own queue may refuse it before, in other words
            waiting = threads.submit(client.infer, "ram_preprocess", inputs, timeout=2_000_000)
            while longest_wait(held) < 2 and not waiting.done():
                time.sleep(0.01)
            held.release()
            told.append(str(waiting.exception()))
            if "the request's timeout has passed" in told[-1]:
                return
            assert held.wait_for_room(MOST)
    raise AssertionError(told)


def test_a_picture_whose_client_has_left_is_not_decoded(held, client, pictures):
    def ignore(result, error):
        """The client is told by itself, and at once."""

    def rows():
        return held._counts.read()

    for attempt in range(10):  # it takes a moment until Triton knows
        held.release()
        assert held.wait_for_room(MOST)
        left = client.async_infer("ram_preprocess", infer_inputs(pictures[:1]), ignore)
        while longest_wait(held) < 0:
            time.sleep(0.01)
        before = rows()["images"].sum()
        left.cancel()
        for _ in range(2**attempt):
            assert client.is_server_live()
        held.release()
        while rows()["waits_since"].any() or rows()["at_work"].any():
            time.sleep(0.01)
        if rows()["images"].sum() == before:
            return
    raise AssertionError("it was decoded each time")
