"""The container's health check, against real servers: healthy is who tags, not who listens."""

import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

from ram_triton.server import LOOPBACK, TritonServer
from support import PATIENCE
from support.pipeline import copy_models

CHECK = Path(__file__).parents[2] / "deploy" / "check_health.py"
PATIENT = ("--timeout", str(PATIENCE))


def check(address, *arguments):
    done = subprocess.run(
        [sys.executable, "-I", CHECK, "--url", f"http://{address}", *PATIENT, *arguments],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_server_that_tags_is_healthy(server):
    status, output, error = check(server.http)
    assert (status, error) == (0, "")
    assert output.startswith("healthy: tag ")


def test_no_server_is_told_in_one_line():
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind((LOOPBACK, 0))
        status, output, error = check(f"{LOOPBACK}:{unused.getsockname()[1]}")
    assert (status, output) == (1, "")
    assert error == "unhealthy: [Errno 111] Connection refused\n"


def test_a_port_that_is_open_and_never_answers_is_unhealthy():
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        address = f"{LOOPBACK}:{silent.getsockname()[1]}"
        status, _, error = check(address, "--timeout", "0.5")
    assert (status, error) == (1, "unhealthy: timed out\n")


def test_what_is_no_http_server_or_address_is_told_in_one_line():
    with socket.create_server((LOOPBACK, 0)) as other:

        def greet():
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"220 mail\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1024):  # closed with something unread it would be reset
                    pass

        thread = Thread(target=greet)
        thread.start()
        status, _, error = check(f"{LOOPBACK}:{other.getsockname()[1]}")
        thread.join()
    assert (status, error) == (1, "unhealthy: BadStatusLine: 220 mail\n")
    status, _, error = check("localhost:8000/a b")
    assert status == 1 and error.startswith(
        "unhealthy: InvalidURL: URL can't contain control characters"
    )
    assert error.count("\n") == 1


def test_a_server_without_the_model_is_unhealthy(repository, tmp_path):
    others = tmp_path / "models"
    copy_models(repository / "ram_preprocess", others / "ram_preprocess")
    with TritonServer(others) as server:
        status, _, error = check(server.http)
    assert status == 1
    assert error.startswith("unhealthy: the server answers 4") and "unknown model" in error
    assert error.count("\n") == 1


def test_a_server_that_is_ready_but_cannot_infer_is_unhealthy(copied):
    """Its vocabulary is empty: it starts, says that it is ready, and fails each request."""
    (copied / "ram_postprocess" / "1" / "vocabulary.json").write_text("[]")
    with TritonServer(copied) as server:
        status, _, error = check(server.http)
    assert status == 1
    assert error.startswith("unhealthy: the server answers 500: ") and error.count("\n") == 1


def test_a_picture_that_is_not_there_is_named(server, tmp_path):
    status, _, error = check(server.http, "--image", tmp_path / "none.png")
    assert (status, error) == (1, f"unhealthy: {tmp_path}/none.png: No such file or directory\n")
