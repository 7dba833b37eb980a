"""Requests that 24.10 does not survive: the service is whole again by itself, and soon.

The inputs are made here. docs/operations.md has the table of what each does.
"""

import base64
import contextlib
import json
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
from ram_triton.processes import is_over
from ram_triton.server import LOOPBACK
from support.supervised import DEADLINE, slow
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor


@pytest.fixture(scope="module")
def image(picture_files):
    return picture_files[0].read_bytes()


def overflowing(model, name, datatype, shape, image=None):
    """A request whose tensor has 2^64 bytes by its shape, and none in fact."""
    request = service_pb2.ModelInferRequest(model_name=model)
    if image is not None:
        encoded = serialize_byte_tensor(np.array([image], np.object_)).item()
        request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        request.inputs.add(name="labels", datatype="BYTES", shape=[1])
        labels = serialize_byte_tensor(np.array([b"tag 1"], np.object_)).item()
        request.raw_input_contents.extend([encoded, labels])
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(b"")
    return request


def send_overflowing(served, *arguments):
    with contextlib.suppress(Exception):  # whatever it is answered
        served.client._client_stub.ModelInfer(overflowing(*arguments), timeout=DEADLINE)


def post(served, body):
    url = f"http://{LOOPBACK}:{served.ports.http}/v2/models/ram/infer"
    with contextlib.suppress(urllib.error.URLError, OSError):
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=DEADLINE).read()


def send_classification(served, image):
    encoded = base64.b64encode(image).decode()
    text = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [encoded]}
    outputs = [{"name": "tags", "parameters": {"classification": 1}}]
    post(served, json.dumps({"inputs": [text], "outputs": outputs}).encode())


def send_deep_json(served, image):
    post(served, b'{"inputs":' + b"[" * 300_000 + b"]" * 300_000 + b"}")


def send_chunks(served, image):
    with socket.create_connection((LOOPBACK, served.ports.http), DEADLINE) as connection:
        head = "POST /v2/models/ram/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with contextlib.suppress(OSError):
            connection.sendall(head.encode())
            for _ in range(600):
                connection.sendall(b"1\r\nA\r\n" * 1000)
            connection.sendall(b"0\r\n\r\n")
            connection.recv(500)


CASES = {
    "a shape that overflows, at an inner model": lambda served, image: send_overflowing(
        served, "ram_head", "image_embeds", "FP32", [1, 2**32, 2**30]
    ),
    "a shape that overflows, at the encoder": lambda served, image: send_overflowing(
        served, "ram_encoder", "pixels", "UINT8", [1, 2**32, 2**32, 3]
    ),
    "a negative shape, at the public model": lambda served, image: send_overflowing(
        served, "ram_open", "threshold", "FP32", [-(2**63), 1], image
    ),
    "a huge shape, at the public model": lambda served, image: send_overflowing(
        served, "ram_open", "threshold", "FP32", [2**62, 1], image
    ),
    "classification of strings": send_classification,
    "300,000 brackets": send_deep_json,
    "600,000 chunks": send_chunks,
}


# One that ends a model's process, one that ends tritonserver.
QUICK = ("a shape that overflows, at an inner model", "classification of strings")


@pytest.mark.parametrize("case", [case if case in QUICK else slow(case) for case in CASES])
def test_the_service_is_whole_again_after(case, served, image):
    before, server, stubs = served.changes(), served.server, served.stubs()
    CASES[case](served, image)
    # Triton looks at its processes each second.
    died = served.wait_for(
        lambda: is_over(server) or any(is_over(s.id) for s in stubs), 30 if case in QUICK else 3
    )
    seconds = served.wait_until_whole(before + died)
    what = "tritonserver" if is_over(server) else "a process" if died else "nothing"
    print(f"{case}: {what} died, whole after {seconds:.1f} s")
    assert served.answers([image])
