"""Half-precision graphs: what is in which type, that they compute the same, and what is refused."""

import collections
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from ram_triton.engines.onnxruntime import RoundedGraph
from ram_triton.engines.tagger import chain, torch_tagger
from ram_triton.errors import GraphError
from ram_triton.graphs.export import export_model
from ram_triton.graphs.half_precision import HALVES, halve, largest_number, node_types
from ram_triton.model.checkpoint import random_model
from ram_triton.model.variant import Variant
from ram_triton.parity.limits import HALF_LIMITS, Limits
from ram_triton.repository.repository import Repository
from support.golden_checkpoint import golden_weights
from support.pipeline import PICTURES, exports_of, run_command

# As wide as it must be for masks as large as those of published models.
LARGE_MASKS = Variant(
    image_size=384,
    embed_dim=8,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    image_width=16,
    label_width=16,
    num_tags=5,
    hidden_size=16,
    num_layers=1,
    intermediate_size=32,
)
ENGINES = ("ram_encoder", "ram_head")


@pytest.fixture(scope="module", params=HALVES)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def halves(repository, precision, tmp_path_factory):
    """Both half-precision graphs of the tiny RAM, by their model's name."""
    folder = tmp_path_factory.mktemp(precision)
    paths = {name: folder / name / "half.onnx" for name in ENGINES}
    for name, path in paths.items():
        halve(repository / name / "1" / "model.onnx", path, precision)
    return paths


def tensors(values):
    return [
        (
            v.name,
            v.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in values
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_inputs_and_outputs_are_those_of_the_float32_graph(halves, repository, name):
    ours = onnx.load(halves[name]).graph
    source = onnx.load(repository / name / "1" / "model.onnx").graph
    assert tensors(ours.input) == tensors(source.input)
    assert tensors(ours.output) == tensors(source.output)


@pytest.mark.parametrize("name", ENGINES)
def test_products_are_in_half_precision_norms_and_the_residual_stream_in_float32(
    halves, precision, name
):
    graph = onnx.load(halves[name]).graph
    types = node_types(graph)
    of_kind = collections.defaultdict(collections.Counter)
    for node in graph.node:
        of_kind[node.op_type][types.get(node.output[0])] += 1
    half, full = HALVES[precision], TensorProto.FLOAT
    assert set(of_kind["LayerNormalization"]) == {full}
    for kind in ("Softmax", "Gelu", *(["Conv"] if name == "ram_encoder" else [])):
        assert set(of_kind[kind]) == {half}
    assert of_kind["MatMul"][full] == 1, "the one that makes the outputs"
    assert of_kind["MatMul"][half] > 10
    written = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            source = written.get(node.input[0])
            while source.op_type in ("Reshape", "Transpose", "Concat", "Slice"):
                source = written[source.input[0]]
            first = source.op_type == "Cast"  # of the patches' convolution
            assert first or types[source.output[0]] == full


@pytest.mark.parametrize("name", ENGINES)
def test_the_server_may_read_the_weights_as_well_as_the_graph(halves, name):
    graph = halves[name]
    assert graph.with_name("half.onnx.data").stat().st_mode == graph.stat().st_mode


@pytest.mark.parametrize("name", ENGINES)
def test_each_node_has_inputs_of_one_floating_type(halves, name):
    graph = onnx.load(halves[name]).graph
    types = node_types(graph)
    for node in graph.node:
        found = {types[tensor] for tensor in node.input if tensor in types}
        assert len(found) <= 1, node.name


def test_the_normalisation_of_pixels_is_exact(halves):
    graph = onnx.load(halves["ram_encoder"]).graph
    types = node_types(graph)
    kinds = [node.op_type for node in graph.node]
    before = graph.node[: kinds.index("Conv")]
    assert [node.op_type for node in before] == ["Cast", "Mul", "Add", "Transpose", "Cast"]
    assert [types[node.output[0]] for node in before[:-1]] == [TensorProto.FLOAT] * 4


@pytest.mark.parametrize("name", ENGINES)
def test_no_constant_is_beyond_half_precision(halves, precision, name):
    largest = largest_number(precision)
    for tensor in onnx.load(halves[name]).graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        assert np.isfinite(values).all() and abs(values).max(initial=0) <= largest, tensor.name


def test_the_logits_are_the_references_within_the_limits(halves, precision, golden):
    tagger = chain(*(RoundedGraph(halves[name]) for name in ENGINES))
    logits = tagger(golden["pixels"])
    assert logits.dtype == np.float32
    difference = np.abs(logits - golden["logits"]).max()
    assert difference <= HALF_LIMITS[precision].logit_difference
    assert difference > 1e-4, "half precision must show, or nothing was rounded"


@pytest.mark.slow
def test_masks_as_large_as_those_of_published_models_are_constants(tmp_path):
    model = random_model(LARGE_MASKS)
    graphs = [tmp_path / name / "model.onnx" for name in ENGINES]
    half = [path.with_name("half.onnx") for path in graphs]
    export_model(model, *graphs)
    for source, target in zip(graphs, half, strict=True):
        halve(source, target, "float16")
    graph = onnx.load(half[0]).graph
    types = node_types(graph)
    kinds = [node.op_type for node in graph.node]
    assert "Unsqueeze" not in kinds
    # Two additions a block are of the residual stream, and two normalise and project.
    in_float32 = [n for n in graph.node if n.op_type == "Add" and types[n.output[0]] == 1]
    assert len(in_float32) == 2 * sum(LARGE_MASKS.depths) + 2
    pixels = np.random.default_rng(0).integers(0, 256, (2, 384, 384, 3), np.uint8)
    difference = np.abs(chain(*map(RoundedGraph, half))(pixels) - torch_tagger(model)(pixels)).max()
    assert 1e-5 < difference < HALF_LIMITS["float16"].logit_difference


def small_graph(*nodes, constants=(), element=TensorProto.FLOAT):
    """A graph from `x` to `y`, (batch, 4) float32; its constants are of the given type."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    initializers = [
        helper.make_tensor(name, element, np.shape(values), np.ravel(values))
        for name, values in constants
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def chain_of_half_precision(element, *steps):
    """Cast x, apply (operator, constant) steps in half precision, and cast the result to y."""
    nodes = [helper.make_node("Cast", ["x"], ["t0"], to=element)]
    for index, (operator, _) in enumerate(steps):
        nodes.append(helper.make_node(operator, [f"t{index}", f"c{index}"], [f"t{index + 1}"]))
    nodes.append(helper.make_node("Cast", [f"t{len(steps)}"], ["y"], to=TensorProto.FLOAT))
    constants = [(f"c{index}", [value]) for index, (_, value) in enumerate(steps)]
    return small_graph(*nodes, constants=constants, element=element)


ONES = np.ones((1, 4), np.float32)
# Adds less than half precision can hold beside 1, and takes the 1 away again.
LOSES_A_BIT = ("Add", 2.0**-13), ("Add", -1.0)


@pytest.mark.parametrize("element", HALVES.values())
def test_numbers_are_rounded_between_nodes(tmp_path, element):
    onnx.save(chain_of_half_precision(element, *LOSES_A_BIT), tmp_path / "half.onnx")
    np.testing.assert_array_equal(RoundedGraph(tmp_path / "half.onnx")(x=ONES)["y"], 0)


def test_onnx_runtime_by_itself_does_not_round_float16_between_nodes():
    """Why RoundedGraph is needed; where this fails, it may have become superfluous."""
    graph = chain_of_half_precision(TensorProto.FLOAT16, *LOSES_A_BIT)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert (session.run(None, {"x": ONES})[0] == 2.0**-13).all()


def test_an_overflow_shows_in_the_peaks_even_where_the_result_is_finite(tmp_path):
    steps = ("Mul", 60000.0), ("Mul", 4.0), ("Mul", 0.0001)
    onnx.save(chain_of_half_precision(TensorProto.FLOAT16, *steps), tmp_path / "half.onnx")
    graph = RoundedGraph(tmp_path / "half.onnx")
    assert np.isinf(graph(x=ONES)["y"]).all()
    assert graph.peaks["t1"] == pytest.approx(60000)
    assert graph.peaks["t2"] == pytest.approx(240000, rel=0.01)
    graph(x=0 * ONES)
    assert graph.peaks["t1"] == pytest.approx(60000), "the largest of all runs counts"


@pytest.mark.parametrize("place", range(8))
def test_a_negative_number_counts_by_its_size(tmp_path, place):
    onnx.save(chain_of_half_precision(TensorProto.FLOAT16, ("Mul", 1.0)), tmp_path / "half.onnx")
    graph = RoundedGraph(tmp_path / "half.onnx")
    numbers = np.ones(8, np.float32)
    for lowest in (-3.0, -np.inf):
        numbers[place] = lowest
        graph(x=numbers.reshape(2, 4))
        assert graph.peaks["t1"] == -lowest


@pytest.mark.parametrize("value", [70000.0, np.inf, np.nan])
def test_a_constant_out_of_range_is_refused_by_its_name(tmp_path, value):
    norm = [
        helper.make_node("Mul", ["x", "mask"], ["m"]),
        helper.make_node("LayerNormalization", ["m", "scale"], ["y"]),
    ]
    graph = small_graph(*norm, constants=[("mask", [value]), ("scale", [1.0] * 4)])
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match=r"the constant 'mask' contains .*float16 ends at"):
        halve(tmp_path / "model.onnx", tmp_path / "half.onnx", "float16")
    assert not (tmp_path / "half.onnx").exists()


def test_an_operator_without_a_rule_is_refused_by_its_name(tmp_path):
    graph = small_graph(helper.make_node("Exp", ["x"], ["y"]))
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="no rule for the operators Exp"):
        halve(tmp_path / "model.onnx", tmp_path / "half.onnx", "float16")


def test_the_manifest_has_the_precision_the_limits_and_the_figures(repository):
    manifest = Repository(repository).manifest()
    half = manifest["half"]
    assert half["precision"] == "float16"
    assert half["limits"] == vars(HALF_LIMITS["float16"]) | {"largest_activation": 65504 / 2}
    measured = half["measured"]
    assert measured["images"] == len([*PICTURES.glob("*.png"), *PICTURES.glob("*.jpg")])
    assert 1e-4 < measured["largest_logit_difference"] <= 0.1
    assert 1 < measured["largest_activation"] < 65504 / 2
    assert {"ram_encoder/1/half.onnx", "ram_head/1/half.onnx"} <= manifest["artefacts"].keys()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def make(vocabulary_folder, checkpoint, capsys):
    """Run `make model`; returns its status and what it says on stderr."""

    def run(repository, checkpoint=checkpoint, **options):
        arguments = {
            "checkpoint": checkpoint,
            "vocabulary": vocabulary_folder,
            "repository": repository,
        } | options
        status = run_command(
            "model",
            [str(part) for name, value in arguments.items() for part in (f"--{name}", value)],
        )
        return status, capsys.readouterr().err

    return run


@pytest.mark.usefixtures("exported_before")
def test_a_model_beyond_the_limits_is_one_line_and_changes_nothing(make, copied, monkeypatch):
    monkeypatch.setitem(HALF_LIMITS, "float16", Limits(1e-6, 1, 0))
    before = contents(copied)
    status, said = make(copied)
    assert (status, said.count("\n")) == (1, 1)
    assert "the float16 graphs with ram_head differ from PyTorch: largest logit difference" in said
    assert "PRECISION=none builds without them" in said
    assert contents(copied) == before


def test_activations_beyond_float16_are_told_and_bfloat16_takes_them(make, repository, tmp_path):
    weights = golden_weights()
    # Swin's last block but one: huge inside, and the same as before outside.
    block = "visual_encoder.layers.3.blocks.0.mlp"
    weights[f"{block}.fc1.bias"] += 60000
    weights[f"{block}.fc2.weight"] *= 1e-6
    torch.save({"model": weights}, tmp_path / "large.pth")
    with exports_of(repository, anew=["ram_encoder"]):
        status, said = make(tmp_path / "models", tmp_path / "large.pth")
    assert (status, said.count("\n")) == (1, 1)
    assert "ram-triton model: float16: an activation reaches 6" in said
    assert "PRECISION=bfloat16 has more room" in said
    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("exported_before")
def test_without_half_precision_none_is_left_of_the_model_before(make, tmp_path):
    models = tmp_path / "models"
    for precision, expected in (("bfloat16", 5), ("none", 0)):
        assert make(models, precision=precision) == (0, "")
        assert len(list(models.glob("*/1/half.onnx"))) == expected
        manifest = json.loads((models / "ram/1/manifest.json").read_text())
        assert (manifest["half"] or {}).get("precision", "none") == precision
