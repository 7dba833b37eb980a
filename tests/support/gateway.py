"""The gateway of deploy/gateway, started in front of servers, and what clients ask it."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml
from ram_client import RamClient
from ram_triton.server import LOOPBACK, Ports

from support import PATIENCE

RECIPE = Path(__file__).parents[2] / "deploy" / "gateway"
ENVOY = Path(sys.executable).with_name("envoy")
CLIENTS = (("cert", "pem"), ("key", "key"))  # the client's option, the file's end


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
                call(request, timeout=PATIENCE, wait_for_ready=False)
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
            "localhost", self.port, timeout=PATIENCE, context=context
        )
        headers = {"authorization": self.key, **headers}
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


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
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
