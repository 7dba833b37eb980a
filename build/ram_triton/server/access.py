"""Who may use what of a server: a key for its inner APIs, loopback for old versions."""

import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ram_triton.errors import ServerError
from ram_triton.repository.layout import PROJECT
from ram_triton.server.installation import OLDEST, SAFE, Release

KEY_FILE = PROJECT / "runs" / "serve" / "key"
KEY_VARIABLE = "RAM_TRITON_KEY"
HEADER = "ram-triton-key"
GRPC_HEADER = f"triton-grpc-protocol-{HEADER}"  # Triton's prefix
# What clients need stays open: health, metadata, model-config, inference.
RESTRICTED = ("shared-memory", "model-repository", "statistics", "trace", "logging")
HTTP_LIMIT_RELEASE = (25, 6)  # from it on bodies over 64 MB are refused
MAX_BATCH, MAX_BYTES = 32, 20 * 2**20  # of ram, and of an image in ram_preprocess
MAX_HTTP_BODY = MAX_BATCH * (MAX_BYTES * 4 // 3 + 1024) + 2**20  # all images as base64 in JSON
ADDRESS_OPTIONS = ("--http-address", "--grpc-address", "--metrics-address")


def new_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_hex(32)


def read_key(file: Path = KEY_FILE) -> str:
    """Return the key of the variable RAM_TRITON_KEY, else of a file, which is made if need be.

    Raises:
        ServerError: others may read the file, or the key is not of letters and digits.
        OSError: the file cannot be read or made.
    """
    key = find_key(file)
    if key is None:
        key = new_key()
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o600), "w") as new:
            new.write(f"{key}\n")
        try:
            os.link(unfinished, file)
        except FileExistsError:  # another start was quicker
            key = find_key(file) or key
        finally:
            unfinished.unlink()
    return key


def find_key(file: Path = KEY_FILE) -> str | None:
    """Return the key as `read_key` does, but None if there is none yet."""
    source: str | Path = KEY_VARIABLE
    if not (key := os.environ.get(KEY_VARIABLE, "")):
        source = file
        if not file.is_file():
            return None
        if file.stat().st_mode & 0o077:
            raise ServerError(f"{file}: others can read this key: run 'chmod 600 {file}'")
        key = file.read_text(encoding="utf-8").strip()
    if not (key.isascii() and key.isalnum()):
        raise ServerError(f"the key in {source} has to be of ASCII letters and digits alone")
    return key


def grpc_headers(key: str) -> dict[str, str]:
    """Return the metadata of a gRPC request to a restricted API."""
    return {GRPC_HEADER: key}


def restrictions(key: str) -> list[str]:
    """Return the options of tritonserver that ask for a key where clients have no business."""
    apis = f"{','.join(RESTRICTED)}:{HEADER}={key}"
    return [f"--http-restricted-api={apis}", f"--grpc-restricted-protocol={apis}"]


def http_limit(release: Release | None) -> list[str]:
    """Return the option that lets the largest request of the documentation through."""
    if release is None or release < HTTP_LIMIT_RELEASE:
        return []  # older ones have no limit
    return [f"--http-max-input-size={MAX_HTTP_BODY}"]


def require_safe_address(address: str, options: Sequence[str], release: Release | None) -> None:
    """Check that a server with known vulnerabilities listens on loopback only.

    Args:
        address: where it is to listen.
        options: further options of tritonserver.
        release: its release; None if it is unknown.

    Raises:
        ServerError: it would listen elsewhere.
    """
    if release is not None and release >= SAFE:
        return
    addresses = [address]
    for index, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name in ADDRESS_OPTIONS:
            addresses.append(value if equals else next(iter(options[index + 1 :]), ""))
    for each in addresses:
        if not _is_loopback(each):
            known = f"{release[0]}.{release[1]:02}" if release else "of unknown release"
            raise ServerError(
                f"tritonserver {known} has known vulnerabilities, remote code execution among "
                f"them (SECURITY.md), and {each} is not loopback: use {OLDEST} or newer, or, if "
                "only people whom you trust can reach it, --accept-known-vulnerabilities"
            )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
