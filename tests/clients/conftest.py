"""A client of each language as a command, and what it is run against."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.language_clients import BUILDERS, PROJECT, PROTOCOLS, build, needs, run
from support.tls_gateway import TLSGateway
from support.transport_server import HTTPTransportServer, TransportServer


@pytest.fixture(scope="session")
def builder(make_once) -> Callable[[str], list[object]]:
    """Build a language's client, once; the words that start it."""
    commands: dict[str, list[object]] = {}
    skipped: dict[str, BaseException] = {}

    def built(language: str) -> list[object]:
        if language in skipped:
            raise skipped[language]
        if language not in commands:
            try:
                commands[language] = BUILDERS[language](make_once)
            except pytest.skip.Exception as reason:
                skipped[language] = reason
                raise
        return commands[language]

    return built


@pytest.fixture(params=BUILDERS)
def language(request) -> str:
    return request.param


@pytest.fixture
def tag(builder, language) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the client of a language to its end: `tag("--server", address, *arguments)`."""
    command = builder(language)

    def run_client(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run([*command, *arguments], PROJECT / "build" / "demo" / "images")

    return run_client


@pytest.fixture
def protocol(language) -> str:
    return PROTOCOLS.get(language, "grpc")


@pytest.fixture
def address(server, protocol) -> str:
    """Where the real server listens for the language's client."""
    return getattr(server, protocol)


@pytest.fixture
def transport_server(protocol) -> Iterator[TransportServer | HTTPTransportServer]:
    server = HTTPTransportServer() if protocol == "http" else TransportServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def certificate(make_once) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    needs("openssl")

    def make(folder: Path) -> None:
        folder.mkdir()
        new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
        names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        command = f"openssl req -x509 -days 2 -out certificate.pem {new_key} {names}"
        build(command.split(), folder)

    folder = make_once("certificate", make)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def gateway(certificate, address, protocol) -> Iterator[str]:
    """The address of TLS before the real server, whose HTTP port has none of its own."""
    application = "h2" if protocol == "grpc" else "http/1.1"
    with TLSGateway(certificate, address, application) as running:
        yield running.address
