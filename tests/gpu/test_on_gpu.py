"""On a GPU: engines of the half-precision graphs are built, loaded, and compute what PyTorch does.

Triton's own TensorRT where it is installed, else TensorRT-RTX, which makes no plans.
"""

import numpy as np
import pytest
import torch
from experiments import gpu
from experiments.gpu import choose_engine
from ram_triton.cli import run_module
from ram_triton.engines.tagger import torch_answers
from ram_triton.engines.tensorrt import TENSORRT, Network, load_tensorrt
from ram_triton.engines.tensorrt_runner import (
    LoadedEngine,
    chain_on_gpu,
    require_cuda,
)
from ram_triton.errors import EngineError, MachineError
from ram_triton.gpus import first_gpu
from ram_triton.graphs.half_precision import HALVES, halve
from ram_triton.parity.compare import choose_tags, compare, compare_maps
from ram_triton.parity.limits import HALF_LIMITS
from ram_triton.parity.pictures import picture_batches
from ram_triton.repository.configs import EngineConfig
from ram_triton.repository.layout import DEFAULT_REPOSITORY
from support.pipeline import PICTURES, run_command

pytestmark = pytest.mark.gpu
MODELS = ("ram_encoder", "ram_head", "ram_maps")
# TensorRT-RTX builds engines for any GPU, and refuses to load them on those of data centres.
UNSUPPORTED = "TensorRT-RTX does not support this compute capability"


@pytest.fixture(scope="module", autouse=True)
def engine():
    """Skip where something is missing; else the name of the TensorRT to use."""
    try:
        first_gpu()
        require_cuda()
        return choose_engine()
    except (MachineError, EngineError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=HALVES)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def engines(engine, precision, repository, tmp_path_factory):
    """Encoder, head and heat maps, built as `make plans` does and loaded."""
    trt, folder = load_tensorrt(engine), tmp_path_factory.mktemp(precision)
    loaded = []
    for name in MODELS:
        halve(repository / name / "1" / "model.onnx", folder / f"{name}.onnx", precision)
        network = Network(trt, folder / f"{name}.onnx")
        profile = EngineConfig.read(DEFAULT_REPOSITORY / name / "config.pbtxt").profile(
            network.bindings
        )
        try:
            loaded.append(LoadedEngine(trt, network.build(profile)[0], name))
        except EngineError as error:
            if UNSUPPORTED in str(error):
                pytest.skip(str(error))
            raise
    return loaded


def some_pictures(model, batch):
    size = model.variant.image_size
    pictures = np.concatenate(list(picture_batches(PICTURES, size)))
    return pictures[np.arange(batch) % len(pictures)]


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 16, 32])
def test_engines_compute_what_pytorch_does(engines, precision, model, vocabulary, batch):
    pixels = some_pictures(model, batch)
    encoder, head, maps = engines
    logits, tag_ids, expected = torch_answers(model, [pixels], choose_tags)
    agreement = compare(logits, chain_on_gpu(encoder, head)(pixels), vocabulary)
    agreement.require(HALF_LIMITS[precision], "the engines")
    made = chain_on_gpu(encoder, maps)(pixels, tag_ids=tag_ids)
    of_maps = compare_maps(expected, tag_ids, made, tag_ids)
    of_maps.require(HALF_LIMITS[precision], "the engines of heat maps")


def test_an_image_has_the_same_logits_wherever_it_stands_in_a_batch(engines, model):
    pixels = some_pictures(model, 3)
    tag = chain_on_gpu(*engines[:2])
    together, swapped = tag(pixels), tag(pixels[::-1].copy())
    assert np.abs(together - swapped[::-1]).max() < 1e-2
    assert np.abs(together[0] - together[1]).max() > 1e-2, "the pictures differ"


def test_a_batch_beyond_the_profile_is_refused(engines, model):
    with pytest.raises(EngineError, match="ram_encoder does not take pixels"):
        chain_on_gpu(*engines[:2])(some_pictures(model, 33))


def test_an_engine_that_is_none_is_refused(engine):
    with pytest.raises(EngineError, match="nothing: cannot be loaded"):
        LoadedEngine(load_tensorrt(engine), b"no engine" * 100, "nothing")


def test_plans_are_made_and_verified(engine, copied, checkpoint, capsys):
    if engine != TENSORRT:
        pytest.skip("TensorRT is missing; TensorRT-RTX makes no plans")
    assert run_command("plans", ["--repository", str(copied)]) == 0
    arguments = ["--repository", str(copied), "--checkpoint", str(checkpoint)]
    assert run_command("verify", [*arguments, "--format", "model.plan"]) == 0
    assert "agrees │ model.plan" in capsys.readouterr().out


def test_figures_are_told_with_the_name_of_the_gpu(engine, engines, checkpoint, capsys):
    arguments = ["--engine", engine, "--checkpoint", str(checkpoint), "--batches", "1", "32"]
    quick = ["--repeats", "2", "--seconds", "0.01", "--warm-up", "0.1"]
    assert run_module("experiments.gpu", gpu, [*arguments, *quick]) == 0
    told = capsys.readouterr().out
    assert torch.cuda.get_device_name() in told
    assert "float16, compiled" in told and "| both | 32 |" in told
