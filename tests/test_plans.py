"""The gate that needs no GPU: TensorRT-RTX parses the typed graphs and builds engines of them.

It is TensorRT's parser and builder. What is checked of names, types and shapes is the network that
they were built of: without a GPU no engine can be loaded.
"""

import importlib.util
import json
import sys

import make_plans
import onnx
import pytest
from onnx import TensorProto, helper
from ram.cuda_device import Device
from ram.engine import RTX, EngineError, Network, Options, load_tensorrt
from ram.engine_config import EngineConfig, EngineConfigError
from ram.export import export_model
from ram.plan import FACTS, PLAN, PlanBuilder, PlanError, fits, install
from ram.random_weights import published_variant, random_model
from ram.repository import Repository, sha256
from ram.served import SOURCE
from ram.typed_graph import HALVES, type_graph

INPUTS = {"ram_encoder": "pixels", "ram_head": "image_embeds"}
NO_TENSORRT = not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_bindings")))


@pytest.fixture(scope="module")
def rtx():
    return load_tensorrt(RTX)


@pytest.fixture(scope="module", params=HALVES)
def typed(request, repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    for name in INPUTS:
        type_graph(
            repository / name / "1" / "model.onnx", folder / name / "typed.onnx", request.param
        )
    return folder


def config_of(name):
    return EngineConfig.read(SOURCE / name / "config.pbtxt")


def build(rtx, graph, config):
    """What the gate does with each graph; returns the profile and the engine."""
    network = Network(rtx, graph)
    config.check(network.bindings)
    profile = config.profile(network.bindings)
    return profile, network.build(profile)[0]


@pytest.mark.parametrize("name", INPUTS)
def test_engines_are_built_for_the_shapes_that_the_config_allows(rtx, typed, name, model):
    profile, engine = build(rtx, typed / name / "typed.onnx", config_of(name))
    variant = model.variant
    each = {
        "ram_encoder": (variant.image_size, variant.image_size, 3),
        "ram_head": (variant.num_tokens, variant.image_width),
    }[name]
    assert profile.as_dict() == {
        INPUTS[name]: {"min": [1, *each], "opt": [16, *each], "max": [32, *each]}
    }
    assert len(engine) > 1000


@pytest.fixture
def head(repository):
    """The tiny RAM's typed head, to be broken, with its weights inside."""
    return onnx.load(repository / "ram_head" / "1" / "typed.onnx")


@pytest.fixture
def passes_the_gate(rtx, tmp_path):
    def run(graph):
        onnx.save(graph, tmp_path / "typed.onnx")
        return build(rtx, tmp_path / "typed.onnx", config_of("ram_head"))

    return run


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
    (tmp_path / "typed.onnx").write_bytes((repository / "ram_head/1/typed.onnx").read_bytes())
    with pytest.raises(EngineError, match=r"typed\.onnx"):
        build(rtx, tmp_path / "typed.onnx", config_of("ram_head"))


@pytest.fixture
def edited(tmp_path):
    """The head's config with a text replaced."""

    def edit(old, new):
        text = (SOURCE / "ram_head" / "config.pbtxt").read_text()
        assert old in text
        (tmp_path / "config.pbtxt").write_text(text.replace(old, new))
        return EngineConfig.read(tmp_path / "config.pbtxt")

    return edit


def test_the_profile_follows_the_config(rtx, repository, edited):
    bindings = Network(rtx, repository / "ram_head/1/typed.onnx").bindings
    profile = edited("max_batch_size: 32", "max_batch_size: 64").profile(bindings)
    assert (profile.min[0], profile.opt[0], profile.max[0]) == (1, 16, 64)
    profile = edited("preferred_batch_size: [ 8, 16 ]", "").profile(bindings)
    assert (profile.min[0], profile.opt[0], profile.max[0]) == (1, 32, 32)
    with pytest.raises(EngineConfigError, match="preferred batch of 16 is over max_batch_size 4"):
        edited("max_batch_size: 32", "max_batch_size: 4").profile(bindings)


def test_a_config_of_other_sizes_fails(rtx, repository, edited):
    bindings = Network(rtx, repository / "ram_head/1/typed.onnx").bindings
    with pytest.raises(EngineConfigError, match=r"'logits' is \[40\] in the graph, \[41\] here"):
        edited("TYPE_FP32 dims: [ -1 ]", "TYPE_FP32 dims: [ 41 ]").check(bindings)
    with pytest.raises(EngineConfigError, match=r"config\.pbtxt: "):
        edited("max_batch_size", "max_bach_size")


def test_the_building_tells_how_far_it_is(rtx, repository):
    told = []
    network = Network(rtx, repository / "ram_head/1/typed.onnx")
    profile = config_of("ram_head").profile(network.bindings)
    network.build(profile, advance=lambda *step: told.append(step))
    phases = [phase for phase, _ in told]
    assert "Building engine" in phases
    assert all(0 <= share <= 1 for _, share in told)


def test_ctrl_c_stops_the_building(rtx, repository):
    def interrupt(phase, share):
        raise KeyboardInterrupt

    network = Network(rtx, repository / "ram_head/1/typed.onnx")
    profile = config_of("ram_head").profile(network.bindings)
    with pytest.raises(KeyboardInterrupt):
        network.build(profile, advance=interrupt)


def test_an_engine_of_tensorrt_rtx_never_becomes_a_plan(rtx, repository):
    device = Device("NVIDIA H100 80GB HBM3", "9.0")
    with pytest.raises(PlanError, match="Triton does not load them"):
        PlanBuilder(Repository(repository), rtx, device, Options())
    assert not list(repository.glob("*/1/*.plan"))


@pytest.mark.skipif(not NO_TENSORRT, reason="TensorRT is installed")
def test_without_tensorrt_one_line_says_where_to_find_it(repository, capsys):
    assert make_plans.main(["--repository", str(repository)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("make plans: TensorRT is missing: run this in the image of")


WANTED = {
    "graph_sha256": "1234",
    "tensorrt": "10.9.0.34",
    "flavour": "tensorrt",
    "gpu": "NVIDIA L4",
    "compute_capability": "8.9",
    "precision": "float16",
    "profiles": {"pixels": {"min": [1, 9], "opt": [16, 9], "max": [32, 9]}},
    "builder_level": 3,
    "version_compatible": False,
    "hardware_compatible": False,
}


@pytest.fixture
def installed(tmp_path):
    """Install a plan with facts that differ in some; returns its folder."""

    def run(**changed):
        staging, folder = tmp_path / "staging", tmp_path / "1"
        for path in (staging, folder):
            path.mkdir(exist_ok=True)
        install(staging, folder, b"a plan", WANTED | changed)
        assert not list(staging.iterdir())
        return folder

    return run


def test_a_plan_has_its_facts_and_its_hash_beside_it(installed):
    folder = installed()
    facts = json.loads((folder / FACTS).read_text())
    assert facts == WANTED | {"plan_sha256": sha256(folder / PLAN)}
    assert (folder / PLAN).read_bytes() == b"a plan"


@pytest.mark.parametrize(
    ("facts", "options", "fit"),
    [
        ({}, Options(), True),
        ({"graph_sha256": "5678"}, Options(), False),
        ({"tensorrt": "10.10.0.31"}, Options(), False),
        ({"gpu": "NVIDIA A10", "compute_capability": "8.6"}, Options(), False),
        ({"profiles": {"pixels": {"max": [64, 9]}}}, Options(), False),
        ({"precision": "bfloat16"}, Options(), False),
        # What was made with options stays while none are asked for, and the other way round not.
        ({"builder_level": 5}, Options(), True),
        ({}, Options(level=5), False),
        ({"version_compatible": True, "tensorrt": "10.3.0.26"}, Options(), True),
        ({"version_compatible": True, "tensorrt": "9.3.0.1"}, Options(), False),
        ({}, Options(version_compatible=True), False),
        ({"hardware_compatible": True, "gpu": "NVIDIA A10"}, Options(), True),
        ({}, Options(hardware_compatible=True), False),
    ],
)
def test_a_plan_is_kept_only_where_it_fits(installed, facts, options, fit):
    wanted = WANTED | {
        "builder_level": options.level,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
    }
    assert fits(installed(**facts), wanted, options) is fit


def test_a_hardware_compatible_plan_needs_ampere_or_later(installed):
    folder = installed(hardware_compatible=True)
    turing = WANTED | {"gpu": "NVIDIA T4", "compute_capability": "7.5"}
    blackwell = WANTED | {"gpu": "NVIDIA B200", "compute_capability": "10.0"}
    assert not fits(folder, turing, Options())
    assert fits(folder, blackwell, Options())


@pytest.mark.parametrize("damage", ["no plan", "another plan", "no facts", "torn facts"])
def test_a_damaged_plan_does_not_fit(installed, damage):
    folder = installed()
    if damage == "no plan":
        (folder / PLAN).unlink()
    elif damage == "another plan":
        (folder / PLAN).write_bytes(b"half a pl")
    elif damage == "no facts":
        (folder / FACTS).unlink()
    else:
        (folder / FACTS).write_text('{"gpu": ')
    assert not fits(folder, WANTED, Options())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX for Linux is pinned")
def test_a_full_size_model_passes_the_gate(rtx, tmp_path):
    model = random_model(published_variant("swin_l", 384, 4585))
    graphs = {name: tmp_path / name / "model.onnx" for name in INPUTS}
    export_model(model, *graphs.values())
    for name, path in graphs.items():
        type_graph(path, path.with_name("typed.onnx"), "float16")
        profile, engine = build(rtx, path.with_name("typed.onnx"), config_of(name))
        assert profile.max[0] == 32
        assert len(engine) > 1e6
