"""A small gRPC server that misbehaves as told, pictures, and the command line as a process."""

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import PIL.Image
import pytest
from ram_client.protocol import TAG_OUTPUTS
from tritonclient.grpc import service_pb2, service_pb2_grpc


class TransportServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks Triton's protocol and tags nothing: it exercises the transport, not the model.

    It answers UNAVAILABLE to the first `failures` inference calls and no tags to the others; after
    `hang()` it answers none at all.
    """

    def __init__(self):
        self.failures = 0
        self.calls = 0
        self.called = threading.Event()
        self._answering = threading.Event()
        self._answering.set()
        self._server = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def hang(self):
        self._answering.clear()

    def stop(self):
        stopped = self._server.stop(grace=None)
        self._answering.set()
        stopped.wait()

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelInfer(self, request, context):
        self.calls += 1
        self.called.set()
        self._answering.wait()
        if self.calls <= self.failures:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return infer_response(request.inputs[0].shape[0])


def infer_response(rows):
    """A response without any tags."""
    response = service_pb2.ModelInferResponse(model_name="ram")
    datatypes = ("BYTES", "BYTES", "FP32", "INT32", "INT32")
    for name, datatype in zip(TAG_OUTPUTS, datatypes, strict=True):
        width = 1 if name == "count" else 0
        response.outputs.add(name=name, datatype=datatype, shape=[rows, width])
        response.raw_output_contents.append(bytes(4 * rows * width))
    return response


@pytest.fixture
def transport_server():
    server = TransportServer()
    yield server
    server.stop()


@pytest.fixture
def unreachable():
    """An address where nothing listens: its port was free a moment ago."""
    server = TransportServer()
    server.stop()
    return server.address


@pytest.fixture(scope="session")
def pictures():
    """Three pictures that differ, as Pillow images."""
    gradient = PIL.Image.linear_gradient("L")
    return [
        PIL.Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))),
        PIL.Image.radial_gradient("L").convert("RGB"),
        PIL.Image.new("RGB", (64, 48), "orange"),
    ]


@pytest.fixture(scope="session")
def photos(pictures):
    """The same three as the bytes of encoded images, each in another format."""
    encoded = []
    for picture, image_format in zip(pictures, ("PNG", "JPEG", "BMP"), strict=True):
        buffer = io.BytesIO()
        picture.save(buffer, format=image_format)
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture
def album(tmp_path, photos):
    """A folder of three good images, a broken one, a text file and a subfolder."""
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    for name, photo in zip(("a.png", "c.JPG", "more/d.bmp"), photos, strict=True):
        (folder / name).write_bytes(photo)
    (folder / "b.jpg").write_bytes(photos[1][:40])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def command():
    """How to start the command line."""
    return [sys.executable, "-m", "ram_tag"]


@pytest.fixture
def ram_tag(tmp_path, command):
    """Run the command to its end; what it printed and its exit status."""

    def run(*arguments, **options):
        return subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            cwd=Path(tmp_path),
            **options,
        )

    return run
