"""What the exported graphs hold, and no longer hold."""

import collections

import onnx
import pytest


@pytest.fixture(scope="module")
def graphs(repository):
    return {
        name: onnx.load(repository / name / "1" / "model.onnx").graph
        for name in ("ram_encoder", "ram_head")
    }


def operators(graph):
    return collections.Counter(node.op_type for node in graph.node)


def shapes(graph):
    return [tuple(initializer.dims) for initializer in graph.initializer]


def test_relative_position_biases_are_constants_not_looked_up_in_tables(graphs, model):
    tables = [
        tuple(weight.shape)
        for name, weight in model.named_parameters()
        if name.endswith("relative_position_bias_table")
    ]
    assert not set(tables) & set(shapes(graphs["ram_encoder"]))
    # One Gather takes the mean token out of the embeddings.
    assert operators(graphs["ram_encoder"])["Gather"] == 1


def test_the_head_computes_nothing_that_depends_on_labels_alone(graphs, model):
    variant = model.variant
    first_queries = 1, variant.num_tags, variant.hidden_size
    assert first_queries in shapes(graphs["ram_head"])
    assert (variant.num_tags, variant.label_width) not in shapes(graphs["ram_head"])
    # A layer has six projections and two products of attention; the first layer's queries are
    # folded in, and the classifier comes last.
    assert operators(graphs["ram_head"])["MatMul"] == 2 * 8 - 1 + 1


def test_masks_fit_half_precision(graphs):
    for initializer in graphs["ram_encoder"].initializer:
        values = onnx.numpy_helper.to_array(initializer)
        assert abs(values).max() < 65504, initializer.name
