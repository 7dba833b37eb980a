"""The doctor: shared memory and memory of decoding, as full batches take them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from ram_triton.doctor.checks import check_configs
from ram_triton.doctor.memory import (
    available_memory,
    check_decoding_memory,
    check_shared_memory,
    instance_bytes,
)
from ram_triton.doctor.repository_view import RepositoryView
from ram_triton.repository.layout import CPU
from ram_triton.server import TritonServer
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput


def inspect(repository):
    view = RepositoryView.read(repository, CPU)
    assert [str(finding.status) for finding in check_configs(view)] == ["fine"]
    return view


def needed(view, model):
    return instance_bytes(view, view.variant, model)


@pytest.mark.parametrize(
    ("free", "status"), [(2**20, "error"), (64 * 2**20, "warning"), (12 * 2**30, "fine")]
)
def test_shared_memory_is_compared_with_what_full_batches_take(repository, free, status):
    (finding,) = check_shared_memory(inspect(repository), (free, free))
    assert str(finding.status) == status
    assert status == "fine" or "--shm-size=11g" in finding.remedy


@pytest.mark.parametrize(("available", "status"), [(2**30, "warning"), (2**36, "fine")])
def test_what_decoding_may_take_is_compared_with_what_is_available(repository, available, status):
    (finding,) = check_decoding_memory(inspect(repository), available)
    assert str(finding.status) == status
    # 4 instances, 12 bytes per pixel and 4 per byte of the limits, and an ordinary JPEG.
    assert "1.6 GiB each" in finding.text
    assert status == "fine" or "max_pixels" in finding.remedy


def test_memory_that_the_kernel_does_not_report_is_not_known(repository, tmp_path):
    assert available_memory() > 2**20
    assert available_memory(tmp_path / "meminfo") is None
    (finding,) = check_decoding_memory(inspect(repository), None)
    assert str(finding.status) == "unknown"


def test_the_estimate_of_shared_memory_covers_what_a_real_server_takes(repository):
    """A full batch of large images, and how large the preprocessor's region then is."""
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    images = np.array([[buffer.getvalue()]] * 32, np.object_)
    with TritonServer(repository) as server, InferenceServerClient(server.http) as client:
        tensor = InferInput("image", [32, 1], "BYTES")
        tensor.set_data_from_numpy(images)
        client.infer("ram", [tensor], outputs=[InferRequestedOutput("count")])
        largest = max(path.stat().st_size for path in server.regions)
    view = inspect(repository)
    limit = view.configs["ram_preprocess"].model.parameters["max_bytes"]
    limit.string_value = str(len(buffer.getvalue()))
    sent = 32 * len(buffer.getvalue())
    assert sent < largest <= needed(view, "ram_preprocess") < 2 * sent


def test_a_model_that_hands_the_images_on_is_counted_with_them_in_and_out(repository):
    view = inspect(repository)
    images = 32 * int(20971520 * 4 / 3)
    assert 2 * images <= needed(view, "ram_open_labels") < 2 * images + 2**20 * 2
