"""Who may ask the HTTP adaptor, how much, how many, and what it says if Triton does not answer."""

import base64
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from ram_client.http.command import main
from ram_client.http.guard import Guard
from ram_client.http.settings import Settings
from starlette.responses import PlainTextResponse
from support.http_adaptor import SECONDS, Adaptor

LABELS, INTERROGATE, TAGS = "/api/v1/vision/labels", "/tagger/v1/interrogate", "/v1/tags"
KEY, OTHER = "a" * 32, "b" * 32
PICTURE = {"image": "eHl6"}  # what stands in for Triton here looks at none
COMMAND = [sys.executable, "-c", "import ram_client.http.command as c, sys; sys.exit(c.main())"]


@pytest.fixture
def adaptor_of(transport_server):
    """Start adaptors before the server that misbehaves as told."""
    running = []

    def start(**settings):
        running.append(Adaptor(**{"server": transport_server.address} | settings))
        return running[-1]

    yield start
    transport_server.stop()  # what hangs would hold up the end
    for adaptor in running:
        adaptor.__exit__()


def basic(key):
    return "Basic " + base64.b64encode(f"user:{key}".encode()).decode()


def test_a_key_is_needed_wherever_one_is_set(adaptor_of):
    adaptor = adaptor_of(keys=(OTHER, KEY))
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {OTHER}"},
        {"Authorization": basic(KEY)},
        {"X-API-Key": KEY},
    ):
        assert adaptor.post(TAGS, json=PICTURE, headers=headers).status_code == 200, headers
    for headers in (
        {},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {OTHER}{KEY}"},
        {"Authorization": "Basic ???"},
        {"Authorization": "Bearer"},
        {"Authorization": basic("")},
        {"X-API-Key": ""},
        {"X-API-Key": "é"},
    ):
        answer = adaptor.post(TAGS, json=PICTURE, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"].startswith("a key is needed")
    assert adaptor.post(LABELS, json={}).json()["code"] == 401
    assert "a key is needed" in adaptor.post(INTERROGATE, json={}).json()["detail"]
    assert adaptor.get("/tagger/v1/interrogators").status_code == 401
    assert adaptor.get("/health").status_code == 200  # a load balancer has no key
    assert adaptor.get("/docs").status_code == 200


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(adaptor_of):
    adaptor = adaptor_of(max_bytes=100_000)
    large = b"x" * 3_000_000
    for body in (large, iter([large[:99_000], large])):  # the second goes in chunks
        answer = adaptor.post(TAGS, data=body)
        assert answer.status_code == 413
        assert answer.json() == {"error": "the body is larger than 100,000 bytes"}
    assert adaptor.post(TAGS, json=PICTURE).status_code == 200


@pytest.mark.parametrize("length", ["1" * 5000, "99999999999999999999"])
def test_a_length_beyond_all_numbers(adaptor_of, length):
    adaptor = adaptor_of()
    answer = adaptor.post(TAGS, data=b"", headers={"Content-Length": length, "Expect": "x"})
    assert answer.status_code in (400, 413)


def test_a_compressed_body_is_refused(adaptor_of):
    answer = adaptor_of().post(TAGS, data=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415 and "compressed" in answer.json()["error"]


def test_a_body_that_does_not_arrive_is_refused(adaptor_of):
    adaptor = adaptor_of(timeout=0.5)
    host, port = adaptor.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        with connection.makefile("rb") as answer:
            assert b" 408 " in answer.readline()


def test_requests_beyond_the_limit_get_503_and_when_to_come_back(adaptor_of, transport_server):
    adaptor = adaptor_of(concurrency=2)
    transport_server.hang()
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(adaptor.post, TAGS, json=PICTURE) for _ in range(2)]
        while transport_server.calls < 2:
            assert not any(future.done() for future in first)
            time.sleep(0.01)
        for path in (TAGS, LABELS, INTERROGATE):
            answer = adaptor.post(path, json=PICTURE)
            assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
        transport_server.answer()
        assert [future.result().status_code for future in first] == [200, 200]
    assert adaptor.post(TAGS, json=PICTURE).status_code == 200


async def test_whoever_has_an_answer_may_ask_again_at_once():
    """As over a connection that stays open: the next request is there before the last one's end."""
    statuses = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif len(statuses) < 3:
            await guard(scope, receive, send)

    scope = {"type": "http", "path": TAGS, "headers": []}
    guard = Guard(PlainTextResponse("tags"), Settings(concurrency=1), ())
    await guard(scope, receive, send)
    assert statuses == [200] * 3


def test_a_full_queue_of_triton_is_503_and_no_answer_is_504(adaptor_of, transport_server):
    transport_server.failures = 1000
    answer = adaptor_of().post(TAGS, json=PICTURE)
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
    assert "Exceeds maximum queue size" in answer.json()["error"]
    transport_server.failures = 0
    transport_server.hang()
    answer = adaptor_of(timeout=2.0).post(LABELS, json={"images": ["eHl6"], "id": "7"})
    assert (answer.status_code, answer.json()["code"], answer.json()["id"]) == (504, 504, "7")
    assert "no answer within 2.0 s" in answer.json()["error"]


def test_without_a_server(adaptor_of, unreachable):
    adaptor = adaptor_of(server=unreachable)
    answer = adaptor.post(TAGS, json=PICTURE)
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
    assert unreachable in answer.json()["error"]
    answer = adaptor.get("/health")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert unreachable in answer.json()["error"]


def test_what_a_client_no_longer_waits_for_is_cancelled(adaptor_of, transport_server):
    adaptor = adaptor_of(concurrency=1, timeout=10 * SECONDS)
    transport_server.hang()
    with pytest.raises(requests.ReadTimeout):
        adaptor.post(TAGS, json=PICTURE, timeout=1.0)
    transport_server.answer()
    deadline = time.monotonic() + SECONDS
    while adaptor.post(TAGS, json=PICTURE).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_ends_it_when_what_it_works_on_is_answered(transport_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"# the photo server\n{KEY}\n\n")
    started = subprocess.Popen(
        [*COMMAND, "--port", "0", "--server", transport_server.address, "--keys", keys],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = re.match(r"(http://127\.0\.0\.1:\d+) ", started.stdout.readline())[1]
    transport_server.hang()
    with ThreadPoolExecutor(1) as pool:
        headers = {"X-API-Key": KEY}
        answer = pool.submit(
            requests.post, url + TAGS, json=PICTURE, headers=headers, timeout=SECONDS
        )
        assert transport_server.called.wait(SECONDS)
        started.send_signal(signal.SIGTERM)
        with pytest.raises(requests.ConnectionError):
            while True:  # until it no longer listens
                requests.get(url + "/docs", timeout=SECONDS)
        transport_server.answer()
        assert answer.result().status_code == 200
    assert started.communicate(timeout=SECONDS) == ("", "")
    assert started.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "told"),
    [
        (["--host", "0.0.0.0"], {}, 1, "--host 0.0.0.0: others can reach it, so it needs keys"),
        (["--keys", "missing"], {}, 1, "missing: No such file or directory"),
        ([], {"RAM_HTTP_KEYS": " ,"}, 1, "RAM_HTTP_KEYS: contains no key"),
        (["--host", "256.1.1.1"], {}, 1, "--host 256.1.1.1: "),
        (["--timeout", "0"], {}, 2, "'0' is not a number from 0.1 to 3600"),
        (["--concurrency", "x"], {}, 2, "'x' is not a number from 1 to 10000"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments, environment, status, told, monkeypatch, capsys
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        assert main(arguments) == status
    except SystemExit as end:  # argparse's
        assert end.code == status
    printed, complaint = capsys.readouterr()
    assert not printed and told in complaint.splitlines()[-1]
    assert status == 2 or len(complaint.splitlines()) == 1


def test_a_port_that_is_taken(transport_server, capsys):
    port = transport_server.address.rpartition(":")[2]
    assert main(["--port", port]) == 1
    assert capsys.readouterr().err == (
        f"ram-http: cannot listen at 127.0.0.1:{port}: Address already in use; "
        "--port names another\n"
    )


def test_without_its_packages(monkeypatch, capsys):
    for module in ("ram_client.http.app", "ram_client.serving"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main([]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("ram-http: uvicorn is missing: install the extra 'http'")
