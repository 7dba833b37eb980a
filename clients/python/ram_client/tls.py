"""TLS and headers: what they need is read and checked before anything is sent."""

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

PROBE_SECONDS = 10.0
# gRPC's messages if a connection was made and did not last, or its handshake failed.
_BROKEN = re.compile(
    r"handshak|verif|ssl|socket closed|connection reset|broken pipe|eof|http2", re.I
)
_REFUSED = "it refuses this client's certificate, or its lack"
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")


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
        self._context()
        return grpc.ssl_channel_credentials(*map(_read, (self.ca, self.key, self.certificate)))

    def find_problem(self, server: str) -> str | None:
        """What is wrong with the certificates, by a connection of its own; None if nothing is."""
        host, port = _split(server)
        try:
            with socket.create_connection((host, port), PROBE_SECONDS) as plain:
                context = self._context()
                context.set_alpn_protocols(["h2"])
                with context.wrap_socket(plain, server_hostname=host) as connection:
                    # With TLS 1.3 a server refuses the client's certificate after the handshake,
                    # and some by hanging up; otherwise HTTP/2's settings come.
                    return None if connection.recv(1) else _REFUSED
        except TimeoutError:
            return None
        except ssl.SSLError as error:
            return _explain(error)
        except OSError:
            return None

    def _context(self) -> ssl.SSLContext:
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


def find_problem(server: str, tls: Tls | None, message: str) -> str | None:
    """Return what is wrong with TLS, if that is why gRPC's connection failed; else None.

    Args:
        server: `host:port`.
        tls: what the client uses; None for plain text.
        message: gRPC's.
    """
    if not _BROKEN.search(message):
        return None
    if tls:
        return tls.find_problem(server)
    host, port = _split(server)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return "it expects TLS: --tls-ca names the certificates to trust (tls_ca in Python)"
    except OSError:
        return None


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


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not fit: {error.verify_message}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "it does not use TLS: leave out the options of TLS"
    return f"{_REFUSED} ({_reason(error)})"
