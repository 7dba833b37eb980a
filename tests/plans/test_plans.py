"""The gate that needs no GPU: TensorRT-RTX parses half-precision graphs and builds their engines.

It is TensorRT's parser and builder. What is checked of names, types and shapes is the network that
they were built of: without a GPU no engine can be loaded.
"""

import os
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper
from ram_triton.engines.tensorrt import RTX, Network, load_tensorrt
from ram_triton.errors import EngineConfigError, EngineError
from ram_triton.graphs.export import export_model
from ram_triton.graphs.half_precision import HALVES, halve
from ram_triton.model.checkpoint import random_model
from ram_triton.model.variant import published_variant
from ram_triton.repository.configs import EngineConfig, Shapes, read_bindings
from ram_triton.repository.layout import DEFAULT_REPOSITORY

INPUTS = {"ram_encoder": "pixels", "ram_head": "image_embeds"}


@pytest.fixture(scope="module")
def rtx():
    return load_tensorrt(RTX)


@pytest.fixture(scope="module", params=HALVES)
def halves(request, repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    for name in INPUTS:
        halve(repository / name / "1" / "model.onnx", folder / name / "half.onnx", request.param)
    return folder


def config_of(name):
    return EngineConfig.read(DEFAULT_REPOSITORY / name / "config.pbtxt")


def build(rtx, graph, config):
    """What the gate does with each graph; returns the profile and the engine."""
    network = Network(rtx, graph)
    config.check(network.bindings)
    profile = config.profile(network.bindings)
    return profile, network.build(profile)[0]


@pytest.mark.parametrize("name", INPUTS)
def test_engines_are_built_for_the_shapes_that_the_config_allows(rtx, halves, name, model):
    profile, engine = build(rtx, halves / name / "half.onnx", config_of(name))
    variant = model.variant
    each = {
        "ram_encoder": (variant.image_size, variant.image_size, 3),
        "ram_head": (variant.num_tokens, variant.image_width),
    }[name]
    assert profile == {INPUTS[name]: Shapes((1, *each), (16, *each), (32, *each))}
    assert len(engine) > 1000


def test_of_the_head_that_takes_labels_images_and_labels_range_as_its_config_says(
    rtx, repository, model
):
    profile, engine = build(
        rtx, repository / "ram_open_head/1/half.onnx", config_of("ram_open_head")
    )
    tokens, width = model.variant.num_tokens, model.variant.image_width
    labels = model.variant.label_width
    assert profile == {
        "image_embeds": Shapes((1, tokens, width), (1, tokens, width), (32, tokens, width)),
        "label_embeds": Shapes((1, labels), (256, labels), (5000, labels)),
    }
    assert len(engine) > 1000


@pytest.mark.parametrize("name", ["ram_maps", "ram_open_maps"])
def test_of_heat_maps_images_and_tags_range_as_their_config_says(rtx, repository, name):
    profile, engine = build(rtx, repository / name / "1" / "half.onnx", config_of(name))
    usual = {"ram_maps": (8, 8), "ram_open_maps": (1, 8)}[name]
    assert profile["tag_ids"] == Shapes((1, 1), usual, (32, 256))
    assert {image.max[0] for image in (profile["image_embeds"], profile["tag_ids"])} == {32}
    assert len(engine) > 1000


@pytest.mark.parametrize("sizes", ["", "1, 32", "32, 8, 1", "1, many, 32", "1, 2x2, 32"])
def test_sizes_that_a_config_does_not_say_rightly_are_refused(rtx, repository, tmp_path, sizes):
    text = (DEFAULT_REPOSITORY / "ram_open_head" / "config.pbtxt").read_text()
    (tmp_path / "config.pbtxt").write_text(text.replace("1, 256, 5000", sizes))
    config = EngineConfig.read(tmp_path / "config.pbtxt")
    bindings = Network(rtx, repository / "ram_open_head/1/half.onnx").bindings
    with pytest.raises(EngineConfigError, match="'label_embeds' must be three sizes"):
        config.check(bindings)


@pytest.fixture
def head(repository):
    """The tiny RAM's half-precision head, to be broken, with its weights inside."""
    return onnx.load(repository / "ram_head" / "1" / "half.onnx")


@pytest.fixture
def passes_the_gate(rtx, tmp_path):
    def run(graph):
        onnx.save(graph, tmp_path / "half.onnx")
        return build(rtx, tmp_path / "half.onnx", config_of("ram_head"))

    return run


@pytest.mark.parametrize("name", [*INPUTS, "ram_open_head", "ram_maps", "ram_open_maps"])
def test_onnx_and_tensorrt_see_the_same_inputs_and_outputs(rtx, repository, name):
    graph = repository / name / "1" / "half.onnx"
    assert read_bindings(graph) == Network(rtx, graph).bindings


def test_the_head_passes_before_it_is_broken(passes_the_gate, head):
    passes_the_gate(head)


def test_an_output_of_another_name_fails(passes_the_gate, head):
    for node in head.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    head.graph.output[0].name = "scores"
    with pytest.raises(EngineConfigError, match=r"config\.pbtxt: the graph has no tensor 'logits'"):
        passes_the_gate(head)


def test_an_output_that_the_config_does_not_know_fails(passes_the_gate, head):
    head.graph.output.append(
        helper.make_tensor_value_info("image_embeds.float16", TensorProto.FLOAT16, None)
    )
    with pytest.raises(EngineConfigError, match=r"'image_embeds\.float16' is not in the config"):
        passes_the_gate(head)


def test_logits_in_half_precision_fail(passes_the_gate, head):
    last = head.graph.node[-1]
    assert list(last.output) == ["logits"]
    last.output[0] = "exact"
    head.graph.node.append(helper.make_node("Cast", ["exact"], ["logits"], to=TensorProto.FLOAT16))
    head.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(EngineConfigError, match="'logits' is FP16 in the graph, FP32 here"):
        passes_the_gate(head)


def test_a_fixed_batch_fails(passes_the_gate, head):
    head.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(EngineConfigError, match="has a fixed batch of 2"):
        passes_the_gate(head)


def test_another_free_dimension_fails(passes_the_gate, head):
    head.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "tokens"
    with pytest.raises(EngineConfigError, match="'image_embeds' has free dimensions"):
        passes_the_gate(head)


def test_an_operator_that_tensorrt_does_not_know_fails(passes_the_gate, head):
    gelu = next(node for node in head.graph.node if node.op_type == "Gelu")
    gelu.op_type, gelu.domain = "Mystery", "elsewhere"
    head.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(EngineError, match="Mystery"):
        passes_the_gate(head)


def test_two_types_at_one_node_fail(passes_the_gate, head):
    """TensorRT before strong typing would have cast where a cast is missing."""
    product = next(node for node in head.graph.node if node.op_type == "MatMul")
    assert product.input[0] == "image_embeds.float16"
    product.input[0] = "image_embeds"
    with pytest.raises(EngineError, match="must have same input types"):
        passes_the_gate(head)


def test_missing_weights_fail(rtx, repository, tmp_path):
    (tmp_path / "half.onnx").write_bytes((repository / "ram_head/1/half.onnx").read_bytes())
    with pytest.raises(EngineError, match=r"half\.onnx"):
        build(rtx, tmp_path / "half.onnx", config_of("ram_head"))


@pytest.fixture
def edited(tmp_path):
    """The head's config with a text replaced."""

    def edit(old, new):
        text = (DEFAULT_REPOSITORY / "ram_head" / "config.pbtxt").read_text()
        assert old in text
        (tmp_path / "config.pbtxt").write_text(text.replace(old, new))
        return EngineConfig.read(tmp_path / "config.pbtxt")

    return edit


def test_the_profile_follows_the_config(rtx, repository, edited):
    bindings = Network(rtx, repository / "ram_head/1/half.onnx").bindings

    def batches(old, new):
        shapes = edited(old, new).profile(bindings)["image_embeds"]
        return shapes.min[0], shapes.opt[0], shapes.max[0]

    assert batches("max_batch_size: 32", "max_batch_size: 64") == (1, 16, 64)
    assert batches("preferred_batch_size: [ 8, 16 ]", "") == (1, 32, 32)
    with pytest.raises(EngineConfigError, match="preferred batch of 16 is over max_batch_size 4"):
        edited("max_batch_size: 32", "max_batch_size: 4").profile(bindings)


def test_a_config_of_other_sizes_fails(rtx, repository, edited):
    bindings = Network(rtx, repository / "ram_head/1/half.onnx").bindings
    with pytest.raises(EngineConfigError, match=r"'logits' is \[40\] in the graph, \[41\] here"):
        edited("TYPE_FP32 dims: [ -1 ]", "TYPE_FP32 dims: [ 41 ]").check(bindings)
    with pytest.raises(EngineConfigError, match=r"config\.pbtxt: "):
        edited("max_batch_size", "max_bach_size")


def test_the_building_tells_how_far_it_is(rtx, repository):
    told = []
    network = Network(rtx, repository / "ram_head/1/half.onnx")
    profile = config_of("ram_head").profile(network.bindings)
    network.build(profile, progress=lambda *step: told.append(step))
    phases = [phase for phase, _ in told]
    assert "Building engine" in phases
    assert all(0 <= share <= 1 for _, share in told)


def test_ctrl_c_stops_the_building(rtx, repository):
    # Of its own, as users have it: OpenVINO's threads leave a process without its signal stack.
    script = """
import signal, sys
from pathlib import Path
from ram_triton.engines.tensorrt import RTX, Network, load_tensorrt
from ram_triton.repository.configs import EngineConfig

told = []

def interrupt(phase, share):
    if not told:
        signal.raise_signal(signal.SIGINT)
    told.append(phase)

signal.signal(signal.SIGINT, signal.default_int_handler)
graph, config = map(Path, sys.argv[1:])
network = Network(load_tensorrt(RTX), graph)
profile = EngineConfig.read(config).profile(network.bindings)
try:
    network.build(profile, progress=interrupt)
except KeyboardInterrupt:
    stopped = len(told)
    network.build(profile, progress=lambda *step: told.append(step))
    print(stopped, len(told) - stopped)
"""
    files = repository / "ram_head/1/half.onnx", DEFAULT_REPOSITORY / "ram_head/config.pbtxt"
    done = subprocess.run(
        [sys.executable, "-c", script, *files],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Exception caught" not in done.stdout + done.stderr, "TensorRT has swallowed it"
    stopped, whole = map(int, done.stdout.split())
    assert stopped < whole / 2, "it went on to the end"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX for Linux is pinned")
def test_a_full_size_model_passes_the_gate(rtx, tmp_path):
    model = random_model(published_variant("swin_l", 384, 4585))
    graphs = {name: tmp_path / name / "model.onnx" for name in INPUTS}
    export_model(model, *graphs.values())
    for name, path in graphs.items():
        halve(path, path.with_name("half.onnx"), "float16")
        profile, engine = build(rtx, path.with_name("half.onnx"), config_of(name))
        assert profile[INPUTS[name]].max[0] == 32
        assert len(engine) > 1e6
