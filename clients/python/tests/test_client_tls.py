"""TLS, client certificates and keys in headers; the certificates are made here, by openssl."""

import re
import shutil
import subprocess
from contextlib import contextmanager

import grpc
import pytest
from ram_client import AccessDenied, CertificateError, RamClient
from ram_triton.server import TritonServer
from support.transport_server import TransportServer

from .test_client_transport import Blocking

pytestmark = pytest.mark.skipif(
    not shutil.which("openssl"), reason="needs openssl, for certificates"
)
KEY_HEADER = "triton-grpc-protocol-key"


def make(folder, name, issuer=None, host="127.0.0.1"):
    """Make NAME.pem and NAME.key, signed by the issuer's or by itself."""
    options = [
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{host}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    ]
    if issuer:
        options += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
        options += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(["openssl", *options], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with two authorities, certificates of both, and one for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ours", "theirs"):
        make(folder, authority)
    make(folder, "server", "ours")
    make(folder, "client", "ours")
    make(folder, "stranger", "theirs")
    make(folder, "elsewhere", "ours", host="192.0.2.1")
    (folder / "text.pem").write_text("no certificate")
    return folder


@pytest.fixture(params=[RamClient, Blocking], ids=["sync", "async"])
def client_class(request):
    return request.param


@contextmanager
def small_server(certificates, name="server"):
    pair = (
        (certificates / f"{name}.key").read_bytes(),
        (certificates / f"{name}.pem").read_bytes(),
    )
    server = TransportServer(grpc.ssl_server_credentials([pair]))
    yield server
    server.stop()


def refusal(client_class, address, **options):
    with (
        client_class(address, retries=0, **options) as client,
        pytest.raises(CertificateError) as refused,
    ):
        client.tag(b"x")
    assert str(refused.value).startswith(f"{address}: ")
    return str(refused.value)


def test_a_certificate_that_fits(client_class, certificates):
    with (
        small_server(certificates) as server,
        client_class(server.address, tls_ca=certificates / "ours.pem") as client,
    ):
        assert client.tag(b"x") == [] and client.is_ready()


def test_a_certificate_that_does_not_fit_is_not_unavailable(client_class, certificates):
    with small_server(certificates) as server:
        message = refusal(client_class, server.address, tls_ca=certificates / "theirs.pem")
        assert "its certificate does not fit: " in message
        assert "its certificate does not fit: " in refusal(client_class, server.address, tls=True)
    with small_server(certificates, "elsewhere") as server:
        message = refusal(client_class, server.address, tls_ca=certificates / "ours.pem")
        assert "its certificate does not fit: IP address mismatch" in message


def test_one_side_without_tls_is_named(client_class, certificates, transport_server):
    with small_server(certificates) as server:
        assert "it expects TLS: " in refusal(client_class, server.address)
    message = refusal(client_class, transport_server.address, tls_ca=certificates / "ours.pem")
    assert "it does not use TLS" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls_ca": "none.pem"}, r"none\.pem: No such file"),
        ({"tls_ca": "text.pem"}, r"text\.pem: "),
        ({"tls_cert": "client.pem"}, "a certificate needs its key"),
        ({"tls_key": "client.key"}, "a certificate needs its key"),
        (
            {"tls_cert": "client.pem", "tls_key": "server.key"},
            r"client\.pem, .*: key values mismatch",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named_before_anything_is_sent(
    client_class, certificates, options, message
):
    with pytest.raises(CertificateError, match=message):
        client_class(**{name: certificates / file for name, file in options.items()})


@pytest.fixture(scope="module")
def secured(repository, certificates):
    """A tritonserver that asks for client certificates, and for a key in a header."""
    arguments = (
        "--grpc-use-ssl=1",
        "--grpc-use-ssl-mutual=1",
        f"--grpc-server-cert={certificates}/server.pem",
        f"--grpc-server-key={certificates}/server.key",
        f"--grpc-root-cert={certificates}/ours.pem",
        "--grpc-restricted-protocol=inference:key=secret",
    )
    with TritonServer(repository, arguments=arguments) as running:
        yield running.grpc


@pytest.fixture
def ours(certificates):
    return {
        "tls_ca": certificates / "ours.pem",
        "tls_cert": certificates / "client.pem",
        "tls_key": certificates / "client.key",
    }


def test_tritonserver_with_client_certificates_and_a_key(client_class, secured, ours, photos):
    with client_class(secured, **ours, headers={KEY_HEADER: "secret"}) as client:
        assert client.tag(photos[0], threshold=0)
    with client_class(secured, **ours, retries=0) as client, pytest.raises(AccessDenied):
        client.tag(photos[0])


def test_tritonserver_refuses_a_stranger(client_class, secured, certificates, ours):
    for options in (
        {"tls_ca": ours["tls_ca"]},
        ours
        | {"tls_cert": certificates / "stranger.pem", "tls_key": certificates / "stranger.key"},
    ):
        assert "it refuses this client's certificate" in refusal(client_class, secured, **options)


def test_the_command_has_all_of_it(ram_tag, secured, certificates, ours, album):
    options = [
        text for name, file in ours.items() for text in (f"--{name.replace('_', '-')}", file)
    ]
    options += ["--server", secured, "--jsonl", album / "a.png"]
    done = ram_tag(*options, "--header", f"{KEY_HEADER}: secret")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    (line,) = ram_tag(*options, album).stderr.splitlines()
    assert re.fullmatch(f"ram-tag: {re.escape(secured)}: .*restricted.*", line)
    done = ram_tag("--server", secured, "--tls-ca", certificates / "theirs.pem", album)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ram-tag: {secured}: its certificate does not fit: ")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("secret", "'secret' is not NAME:VALUE"), ("a b:c", "'a b' is not a header's name")],
)
def test_a_wrong_header_is_wrong_usage(ram_tag, text, complaint):
    done = ram_tag("a.jpg", "--header", text)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(complaint)
