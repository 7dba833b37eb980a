"""The connection to a server: gRPC's options and retries, TLS, headers, and why there is none.

What TLS and headers need is read and checked before anything is sent.
"""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import grpc

from .errors import CertificateError

FilePath = str | PathLike[str]

SERVER_VARIABLE = "RAM_SERVER"
FIRST_WAIT = "0.2s"  # then twice as long each time, give or take a fifth
MAX_RETRIES = 4  # gRPC makes no more than five attempts
# The budget of retries, which all calls to a server share: an UNAVAILABLE takes one of its tokens,
# an answer gives back a tenth, and nothing is repeated while half of them or more are gone. Half of
# 100 is a full round for eight calls at once (four retries each), as while a server restarts. A
# server that stays full gets, beyond them, one repetition per ten answers.
TOKENS = 100
TOKENS_PER_ANSWER = 0.1

PROBE_SECONDS = 10.0
# gRPC's messages if a connection was made and did not last, or its handshake failed.
_BROKEN = re.compile(
    r"handshak|verif|ssl|socket closed|connection reset|broken pipe|eof|http2", re.I
)
_REFUSED = "it refuses this client's certificate, or its lack"
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")


def channel_arguments(retries: int) -> list[tuple[str, object]]:
    """Channel arguments that let gRPC itself repeat calls that end in UNAVAILABLE.

    Of these the calls for an inference, and for a model's metadata, which may precede the first.

    That is what an unreachable server, a full queue and a model that is not loaded answer, and the
    request did nothing. A call's deadline covers all attempts and the waits between them. `retries`
    is 0..4. The budget is gRPC's retry throttling: once it is used up, a call fails at its first
    UNAVAILABLE.
    """
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries: {retries} is not in 0..{MAX_RETRIES}")
    arguments: list[tuple[str, object]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # After a failed connection gRPC refuses calls until it tries again, by default up to two
        # minutes later: no retry would reach a server that has come back.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": FIRST_WAIT,
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        methods = [
            {"service": "inference.GRPCInferenceService", "method": method}
            for method in ("ModelInfer", "ModelMetadata")
        ]
        config = {
            "methodConfig": [{"name": methods, "retryPolicy": policy}],
            "retryThrottling": {"maxTokens": TOKENS, "tokenRatio": TOKENS_PER_ANSWER},
        }
        arguments += [
            ("grpc.service_config", json.dumps(config)),
            # The default, 256 KiB, silently leaves larger requests without retries.
            ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
        ]
    return arguments


@dataclass(frozen=True)
class Tls:
    """What a connection with TLS needs, each a path of a PEM file.

    ca: the certificates to trust; None for those that gRPC comes with.
    certificate, key: the client's own, for servers that ask for one (mTLS); both or none.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None

    @classmethod
    def choose(
        cls, tls: bool, ca: FilePath | None, certificate: FilePath | None, key: FilePath | None
    ) -> "Tls | None":
        """TLS if it is asked for, or anything of it is given; None for plain text."""
        return cls(ca, certificate, key) if tls or ca or certificate or key else None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raises CertificateError if one cannot be read or used."""
        if bool(self.certificate) != bool(self.key):
            raise CertificateError("a certificate needs its key, and a key its certificate")
        self.context()
        return grpc.ssl_channel_credentials(*map(_read, (self.ca, self.key, self.certificate)))

    def context(self) -> ssl.SSLContext:
        """The same for Python's own connections; raises as `credentials`."""
        context = ssl.create_default_context()
        for file in (self.ca, self.certificate, self.key):
            if file:
                _read(file)
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            files = ", ".join(str(file) for file in (self.ca, self.certificate, self.key) if file)
            raise CertificateError(f"{files}: {_reason(error)}") from error
        return context


def find_tls_problem(server: str, tls: Tls | None, message: str) -> str | None:
    """Return what is wrong with TLS, if that is why gRPC's connection failed; else None.

    Args:
        server: `host:port`.
        tls: what the client uses; None for plain text.
        message: gRPC's.
    """
    if not _BROKEN.search(message):
        return None
    host, port = _split(server)
    try:
        if tls:
            context = tls.context()
            context.set_alpn_protocols(["h2"])
        else:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            if not tls:
                return "it expects TLS: --tls-ca names the certificates to trust (tls_ca in Python)"
            # With TLS 1.3 a server refuses the client's certificate after the handshake, and some
            # by hanging up; otherwise HTTP/2's settings come.
            return None if connection.recv(1) else _REFUSED
    except ssl.SSLError as error:
        return _explain_tls(error) if tls else None
    except OSError:
        return None


async def explain(server: str) -> str | None:
    """Return what is wrong with the address of a server that gRPC cannot reach; None if unknown."""
    host, _, port = server.rpartition(":")
    if not port.isdecimal():
        return None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            start = await reader.read(5)
            writer.close()
    except TimeoutError:
        return None
    except OSError:
        return (
            f"no server at {server}: start one with 'make serve', or name it with --server or "
            f"{SERVER_VARIABLE}"
        )
    if start != b"HTTP/":
        return None
    return f"{server} is an HTTP port; gRPC is usually one higher: --server {host}:{int(port) + 1}"


def metadata(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Headers as gRPC takes them, with names in lower case.

    Raises ValueError for a name or a value that no header can have.
    """
    found = {}
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name.lower()) or name.lower().endswith("-bin"):
            raise ValueError(f"headers: {name!r} is not a header's name")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers: the value of {name!r} contains more than printable ASCII")
        found[name.lower()] = value
    return found


def _split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


def _read(file: FilePath | None) -> bytes | None:
    try:
        return Path(file).read_bytes() if file else None
    except OSError as error:
        raise CertificateError(f"{file}: {error.strerror}") from error


def _reason(error: ssl.SSLError) -> str:
    if error.reason is None:
        return "is not a PEM file of a certificate or key"
    return error.reason.lower().replace("_", " ")


def _explain_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not fit: {error.verify_message}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "it does not use TLS: leave out the options of TLS"
    return f"{_REFUSED} ({_reason(error)})"
