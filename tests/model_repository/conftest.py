"""The tiny RAM's server, as most of these tests ask it."""

import pytest
import tritonclient.grpc as grpc


@pytest.fixture
def client(server):
    with grpc.InferenceServerClient(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def pictures(picture_files):
    """Encoded images."""
    return [path.read_bytes() for path in picture_files]
