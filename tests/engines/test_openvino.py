"""OpenVINO on the CPU: its answers, and that the server's backend and the build share its facts."""

import numpy as np
import openvino
import pytest
from openvino import opset13
from ram_triton.engines.openvino import HINTS, PRECISION, CompiledGraph, config_properties
from ram_triton.repository.configs import EngineConfig
from ram_triton.repository.layout import BACKENDS, DEFAULT_REPOSITORY, OPENVINO_BACKEND


@pytest.fixture(scope="module")
def doubling():
    """A graph that doubles (batch, 2) numbers."""
    given = opset13.parameter([-1, 2], np.float32, name="given")
    given.output(0).tensor.set_names({"given"})
    doubled = opset13.multiply(given, opset13.constant(np.float32(2)))
    doubled.output(0).tensor.set_names({"doubled"})
    return openvino.Model([doubled], [given])


def test_an_answer_stays_what_it_is_when_the_next_one_is_computed(doubling):
    graph = CompiledGraph(doubling)
    first = graph(given=np.ones((1, 2), np.float32))["doubled"]
    second = graph(given=np.full((1, 2), 7, np.float32))["doubled"]
    assert first.tolist() == [[2, 2]] and second.tolist() == [[14, 14]]
    del graph
    assert first.tolist() == [[2, 2]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_shows_the_precision_that_it_was_compiled_for(doubling, precision):
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    possible = precision if "BF16" in capabilities else "float32"
    assert CompiledGraph(doubling, {PRECISION: HINTS[precision]}).precision == possible


def test_a_configs_parameters_that_are_openvinos_are_its_properties(tmp_path):
    names = PRECISION, "CACHE_DIR", "something_else"
    parameters = [f'parameters {{ key: "{n}" value {{ string_value: "{n}" }} }}' for n in names]
    (tmp_path / "config.pbtxt").write_text("\n".join(parameters))
    config = EngineConfig.read(tmp_path / "config.pbtxt").model
    assert config_properties(config) == {name: name for name in names[:2]}


def test_every_parameter_of_the_cpu_profile_is_a_property_or_the_backends():
    for path in DEFAULT_REPOSITORY.glob("*/configs/cpu.pbtxt"):
        config = EngineConfig.read(path).model
        if config.backend == OPENVINO_BACKEND:
            properties = config.parameters.keys() - {"load"}
            assert config_properties(config).keys() == properties, path


def test_the_servers_backend_has_no_such_facts_of_its_own():
    served = (BACKENDS / OPENVINO_BACKEND / "model.py").read_text()
    assert "from on_cpu import" in served
    for fact in ("PERFORMANCE_HINT", "CACHE_DIR", "bf16", "compile_model"):
        assert fact not in served
