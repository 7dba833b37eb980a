"""Who may use what: the key of the inner APIs, and where an old server may listen."""

import pytest
from ram_triton.errors import ServerError
from ram_triton.server import access

OLD, SAFE = (24, 10), (26, 7)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(access.KEY_VARIABLE, raising=False)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    file = tmp_path / "new" / "key"
    assert access.find_key(file) is None
    key = access.read_key(file)
    assert len(key) == 64 and access.read_key(file) == access.find_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["key"]


def test_the_variable_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv(access.KEY_VARIABLE, "abc123")
    assert access.read_key(tmp_path / "key") == "abc123"
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("abc")
    file.chmod(0o644)
    with pytest.raises(ServerError, match="others can read this key: run 'chmod 600"):
        access.read_key(file)
    monkeypatch.setenv(access.KEY_VARIABLE, "a:b=c,d")
    with pytest.raises(ServerError, match="RAM_TRITON_KEY has to be of ASCII letters and digits"):
        access.read_key(file)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_allowed_to_any_server(address):
    access.require_safe_address(address, [f"--http-address={address}"], OLD)


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("0.0.0.0", []),
        ("192.168.0.1", []),
        ("example.org", []),
        ("127.0.0.1", ["--grpc-address=0.0.0.0"]),
        ("127.0.0.1", ["--http-address", "::"]),
        ("127.0.0.1", ["--metrics-address=10.0.0.1"]),
    ],
)
@pytest.mark.parametrize("release", [OLD, (26, 6), None])
def test_elsewhere_only_a_server_without_known_holes_listens(address, options, release):
    with pytest.raises(ServerError, match=r"known vulnerabilities.*--accept-known-vulnerabilities"):
        access.require_safe_address(address, options, release)
    access.require_safe_address(address, options, SAFE)


def test_the_largest_request_of_the_documentation_fits():
    assert access.http_limit(OLD) == []
    (option,) = access.http_limit((26, 11))
    assert int(option.removeprefix("--http-max-input-size=")) > 32 * 20 * 2**20 * 4 / 3
