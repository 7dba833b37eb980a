"""The CPU profile's precision: the processor's best, float32 by one setting, told by the log."""

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from ram_triton.parity.limits import HALF_LIMITS
from ram_triton.server import TritonServer
from support.pipeline import FLOAT32, copy_models
from support.requests_to_ram import ask


@pytest.fixture(scope="module")
def best_of_this_processor():
    """Read off the processor, not asked of OpenVINO: it accepts bfloat16 that it only emulates."""
    return "bfloat16" if " avx512_bf16 " in Path("/proc/cpuinfo").read_text() else "float32"


@pytest.fixture(scope="module")
def untouched(repository, tmp_path_factory):
    """The repository with the project's own configs."""
    copy = copy_models(repository, tmp_path_factory.mktemp("untouched") / "models")
    for config in copy.glob("*/configs/cpu.pbtxt"):
        config.write_text(config.read_text().replace(FLOAT32, f"# {FLOAT32}"))
    return copy


def serve_once(repository, picture):
    """Return what the log says of the engines, and the logits of a picture."""
    log = []
    with (
        TritonServer(repository, log=log.append) as server,
        grpc.InferenceServerClient(server.grpc) as client,
    ):
        logits = ask(client, [picture], outputs=("logits",))["logits"]
    return {line.split("] ")[-1].strip('"') for line in log if "runs on the CPU in" in line}, logits


@pytest.mark.slow
def test_the_log_says_at_the_start_that_the_best_of_the_processor_is_used(
    untouched, repository, picture_files, best_of_this_processor
):
    picture = picture_files[0].read_bytes()
    told, logits = serve_once(untouched, picture)
    assert told == {
        f"{name}: model.onnx runs on the CPU in {best_of_this_processor} "
        "(the best of this processor)"
        for name in ("ram_encoder", "ram_head", "ram_open_head")
    }
    told, exact = serve_once(repository, picture)
    assert told == {
        f"{name}: model.onnx runs on the CPU in float32 (as its config says)"
        for name in ("ram_encoder", "ram_head", "ram_open_head")
    }
    np.testing.assert_allclose(logits, exact, atol=HALF_LIMITS["bfloat16"].logit_difference)
    assert (np.abs(logits - exact).max() > 0) == (best_of_this_processor != "float32")
