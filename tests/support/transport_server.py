"""Small servers that misbehave as told, one per protocol."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from ram_client.protocol import TAG_OUTPUTS
from tritonclient.grpc import service_pb2, service_pb2_grpc


class TransportServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks Triton's protocol and tags nothing: it exercises the transport, not the model.

    It answers UNAVAILABLE to the first `failures` inference calls and no tags to the others. After
    `hang()` it answers none at all; with `answers`, the first so many, and it is `hanging` once it
    has another; with `answers_once_hanging` it answers those only then. `request` and `headers` are
    the last call's. With an `image_size` it takes pixels of that size, and no other; with a
    `refusal` it refuses all as wrong, in these words.
    """

    def __init__(self, credentials=None):
        self.failures = 0
        self.calls = 0
        self.answers = None
        self.answers_once_hanging = False
        self.image_size = None
        self.refusal = ""
        self.sizes_asked = 0
        self.hanging = threading.Event()
        self._counting = threading.Lock()
        self.called = threading.Event()
        self._answering = threading.Event()
        self._answering.set()
        self._server = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)]
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if credentials:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def hang(self):
        self._answering.clear()

    def answer(self):
        self._answering.set()

    def stop(self):
        stopped = self._server.stop(grace=None)
        self._answering.set()
        self.hanging.set()
        stopped.wait()

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request, context):
        self.sizes_asked += 1
        if self.image_size is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}'")
        metadata = service_pb2.ModelMetadataResponse(name=request.name)
        metadata.inputs.add(name="pixels", shape=[-1, self.image_size, self.image_size, 3])
        return metadata

    def ModelInfer(self, request, context):
        shape = list(request.inputs[0].shape)
        if request.model_name == "ram_pixels" and shape[1:3] != [self.image_size] * 2:
            text = f"unexpected shape for input 'pixels' got {shape}. NOTE: on configs"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if self.refusal:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        with self._counting:
            self.calls += 1
            number = self.calls
        self.request, self.headers = request, dict(context.invocation_metadata())
        self.called.set()
        if self.answers is not None and number > self.answers:
            self.hang()
            self.hanging.set()
        elif self.answers_once_hanging:
            self.hanging.wait()
        if self.answers is None or number > self.answers:
            self._answering.wait()
        if number <= self.failures:
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


class HTTPTransportServer:
    """The same over HTTP; `status` is that of its answers."""

    def __init__(self):
        self.failures = 0
        self.calls = 0
        self.status = 200
        self._answering = threading.Event()
        self._answering.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.calls += 1
                outer.headers = {name.lower(): value for name, value in self.headers.items()}
                outer._answering.wait()
                if outer.calls <= outer.failures:
                    self.answer(503, {"error": "Exceeds maximum queue size"})
                else:
                    outputs = [
                        {
                            "name": name,
                            "shape": [1, int(name == "count")],
                            "data": [0][: name == "count"],
                        }
                        for name in TAG_OUTPUTS
                    ]
                    self.answer(outer.status, {"outputs": outputs})

            def answer(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def hang(self):
        self._answering.clear()

    def answer(self):
        self._answering.set()

    def stop(self):
        self._answering.set()
        self._server.shutdown()
        self._server.server_close()
