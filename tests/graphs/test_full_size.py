"""The four published shapes with all 4,585 tags, weights of noise: they build, and are served."""

import numpy as np
import pytest
import tritonclient.grpc as grpc
from experiments.full_size import measure
from ram_triton.build import BuildRequest, build
from ram_triton.engines.tagger import torch_tagger
from ram_triton.model.checkpoint import random_model, save_model
from ram_triton.model.variant import published_variant
from ram_triton.server import TritonServer
from ram_triton.server_code import preprocess
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH
from support.pipeline import PICTURES, use_float32
from support.requests_to_ram import ask

NUM_TAGS = 4585

pytestmark = pytest.mark.slow


MOST_MEMORY = 6e9  # bytes


@pytest.mark.parametrize("image_size", [224, 384])
@pytest.mark.parametrize("backbone", ["swin_b", "swin_l"])
def test_a_published_shape_builds_and_is_served_as_pytorch_computes_it(
    backbone, image_size, tmp_path, picture_files
):
    model = random_model(published_variant(backbone, image_size, NUM_TAGS))
    save_model(model, tmp_path / "ram.pth")
    for name in (ENGLISH, CHINESE):
        (tmp_path / name).write_text("\n".join(f"{name} {index}" for index in range(NUM_TAGS)))
    repository = tmp_path / "models"
    agreement = build(
        BuildRequest(tmp_path / "ram.pth", tmp_path, repository, PICTURES, backbone, image_size)
    )
    assert agreement.tag_f1 > 0.999
    use_float32(repository)
    picture = picture_files[0].read_bytes()
    with TritonServer(repository) as server, grpc.InferenceServerClient(server.grpc) as client:
        served = ask(client, [picture], outputs=("logits",))["logits"]
    expected = torch_tagger(model)(preprocess(picture, image_size)[None])
    np.testing.assert_allclose(served, expected, atol=1e-3)


def test_a_build_of_full_size_stays_below_6_gigabytes(tmp_path):
    *steps, server = measure("swin_l", 384, tmp_path)
    assert max(step.peak_bytes for step in steps) < MOST_MEMORY
    assert server.peak_bytes < MOST_MEMORY
