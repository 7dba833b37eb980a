"""The supervisor's own HTTP endpoint, whatever the probes that ask it do."""

import json
import socket
import struct
import urllib.request
from http.client import RemoteDisconnected

import pytest
from ram_triton.server import LOOPBACK, Ports
from ram_triton.server.health import LIVE, METRICS, READY, Health

AT_ONCE = struct.pack("ii", 1, 0)  # what closes a connection without a goodbye


@pytest.fixture
def health():
    health = Health()
    health.serve(LOOPBACK, Ports.free().health)
    health._server.daemon_threads = False  # its end waits for all answers
    yield health
    health.close()


@pytest.fixture
def port(health):
    return health._server.server_port


@pytest.mark.parametrize(
    "sent", ["", "GET / HT", "no HTTP\r\n\r\n", f"GET {METRICS} HTTP/1.1\r\n\r\n"]
)
def test_a_probe_that_does_not_wait_for_its_answer_leaves_nothing_in_the_log(
    health, port, capsys, sent
):
    for _ in range(10):
        with socket.create_connection((LOOPBACK, port)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            probe.sendall(sent.encode())
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{LIVE}") as answer:
        assert json.load(answer)["state"] == "starting"
    health.close()
    assert capsys.readouterr().err == ""


def test_a_fault_of_its_own_is_in_the_log(health, port, capsys):
    health.lines_dropped = lambda: 1 / 0
    with pytest.raises(RemoteDisconnected):
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}{READY}")
    health.close()
    assert "ZeroDivisionError" in capsys.readouterr().err
