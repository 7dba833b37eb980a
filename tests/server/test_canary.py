"""When the picture that a supervisor sends now and then means that the server must be restarted."""

import re

import pytest
from ram_triton.server import watch as module
from ram_triton.server.api import RAM, RAM_OPEN, Api
from ram_triton.server.watch import FAILURES, Canary
from support.transport_server import HTTPTransportServer


@pytest.fixture
def server():
    started = HTTPTransportServer()
    yield started
    started.stop()


@pytest.fixture
def look(server, monkeypatch):
    """Look after a server that is silent, fails or answers; returns the canary."""
    api = Api(server.address, f"http://{server.address}/metrics", "key")
    canary = Canary(api, [RAM, RAM_OPEN], quickest=0)

    def look_once(behaviour, model=RAM):
        server.hang() if behaviour == "silent" else server.answer()
        server.status = 500 if behaviour == "fails" else 200
        monkeypatch.setattr(module, "SHORTEST", 0.1 if behaviour == "silent" else 60)
        canary._look_after(model)
        return canary

    return look_once


def test_the_key_is_not_shown():
    assert "secret" not in repr(Api("localhost:1", "http://localhost:2/metrics", "secret"))


def test_one_silence_may_be_a_pause_of_the_machine(look):
    for _ in range(3):
        canary = look("silent")
        assert not canary.is_well and canary.problem is None
        assert look("answers").is_well


def test_a_server_that_stays_silent_is_restarted(look):
    look("silent")
    assert re.fullmatch(r"ram does not answer \(timed out, \d+ s\)", look("silent").problem)


def test_a_model_that_stays_silent_is_not_hidden_by_another_that_answers(look):
    look("silent")
    assert not look("answers", RAM_OPEN).is_well
    assert look("silent").problem.startswith("ram does not answer")


def test_a_server_that_fails_time_after_time_is_restarted(look):
    for _ in range(FAILURES - 1):
        assert look("fails").problem is None
    assert look("fails").problem.startswith("ram fails: ")


def test_what_failed_while_a_model_was_loaded_again_is_forgiven(look):
    look("silent").forgive()
    assert look("silent").problem is None
