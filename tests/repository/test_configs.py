"""The config files: they parse, agree with each other, with the graphs and with the code."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from ram_triton.repository.configs import EngineConfig, read_bindings
from ram_triton.repository.layout import MODELS as TABLE
from ram_triton.repository.layout import OPENVINO_BACKEND, Engine
from ram_triton.server_code import image_limits, label_limits, postprocessing, preprocess
from ram_triton.vocabulary.choose import NEW_THRESHOLD
from support.pipeline import FLOAT32, patient
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import deserialize_bytes_tensor

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "model_repository"
CONFIGS = sorted(
    path for folder in ("model_repository", "build") for path in (ROOT / folder).rglob("*.pbtxt")
)
CPU_ENCODER = MODELS / "ram_encoder/configs/cpu.pbtxt"
NAMES = sorted(path.name for path in MODELS.iterdir() if path.is_dir())
ENGINES = ("ram_encoder", "ram_head")  # that batch, for every request
ALL_ENGINES = (*ENGINES, "ram_open_head", "ram_maps", "ram_open_maps")
ONNX_TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


def read(name, file="config.pbtxt"):
    folder = ROOT / "build/optional_models" if TABLE[name].optional else MODELS
    return text_format.Parse((folder / name / file).read_text(), ModelConfig())


def tensors(entries):
    return {e.name: (DataType.Name(e.data_type), tuple(e.dims)) for e in entries}


def inputs_and_outputs(name, profile):
    file = "configs/cpu.pbtxt" if profile == "cpu" and name in ALL_ENGINES else "config.pbtxt"
    config = read(name, file)
    for entry in (*config.input, *config.output):
        if not entry.dims:  # the model itself adds its variant's
            entry.dims.extend([-1, -1, 3])
    return tensors(config.input), tensors(config.output)


def whole_shapes(name, profile, ensemble):
    """A step's tensors as its ensemble sees them: with the batch, where it does not batch."""
    batches = read(name).max_batch_size and not ensemble.max_batch_size
    return (
        {key: (kind, (-1, *dims) if batches else dims) for key, (kind, dims) in entries.items()}
        for entries in inputs_and_outputs(name, profile)
    )


def test_the_repository_holds_the_steps_of_all_ensembles_and_nothing_else():
    assert set(NAMES) == {model.name for model in TABLE.values() if not model.optional}
    assert [path.name for path in MODELS.iterdir() if not path.is_dir()] == []
    for name in NAMES:
        assert read(name).name == name


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
@pytest.mark.parametrize("name", ["ram", "ram_open", "ram_pixels"])
def test_each_tensor_of_the_ensemble_fits_the_steps_that_write_and_read_it(name, profile):
    ensemble = read(name)
    known = tensors(ensemble.input)
    optional = {entry.name for entry in ensemble.input if entry.optional}
    for step in ensemble.ensemble_scheduling.step:
        _, outputs = whole_shapes(step.model_name, profile, ensemble)
        assert set(step.output_map) <= set(outputs)
        for own, shared in step.output_map.items():
            assert shared not in known, f"{shared} is written twice"
            known[shared] = outputs[own]
    for step in ensemble.ensemble_scheduling.step:
        inputs, _ = whole_shapes(step.model_name, profile, ensemble)
        assert set(step.input_map) == set(inputs)
        for own, shared in step.input_map.items():
            assert known[shared] == inputs[own], f"{shared} into {step.model_name}"
    for name, tensor in tensors(ensemble.output).items():
        assert known[name] == tensor
    steps = (read(step.model_name) for step in ensemble.ensemble_scheduling.step)
    assert optional == {entry.name for step in steps for entry in step.input if entry.optional}


@pytest.mark.parametrize("name", ["ram", "ram_pixels"])
def test_the_ensemble_avoids_what_triton_leaves_out_wrongly(name):
    steps = read(name).ensemble_scheduling.step
    inputs = {tensor for step in steps for tensor in step.input_map.values()}
    assert not inputs & {entry.name for entry in read(name).output}
    with_options = [any(e.optional for e in read(step.model_name).input) for step in steps]
    assert with_options == [True] + [False] * (len(steps) - 1)


@pytest.mark.parametrize("name", ALL_ENGINES)
def test_the_profiles_differ_in_engine_and_batching_alone(name):
    gpu, cpu = read(name), read(name, "configs/cpu.pbtxt")
    assert (gpu.platform, cpu.backend) == ("tensorrt_plan", OPENVINO_BACKEND)
    assert inputs_and_outputs(name, "gpu") == inputs_and_outputs(name, "cpu")
    assert gpu.max_batch_size == cpu.max_batch_size


@pytest.mark.parametrize("name", ["ram", "ram_pixels"])
def test_every_step_takes_the_batches_that_the_ensemble_allows(name):
    steps = [read(step.model_name) for step in read(name).ensemble_scheduling.step]
    assert {step.max_batch_size for step in steps} == {read(name).max_batch_size}


def test_pixels_get_the_options_and_outputs_that_encoded_images_get():
    images, pixels = read("ram"), read("ram_pixels")
    assert list(images.input)[1:] == list(pixels.input)[1:]
    assert list(images.output) == list(pixels.output)


@pytest.mark.parametrize("model", TABLE.values(), ids=TABLE)
def test_the_table_of_models_agrees_with_the_configs(model):
    config = read(model.name)
    steps = {step.model_name for step in config.ensemble_scheduling.step}
    assert set(model.steps) == steps and len(model.steps) == len(steps)
    engine = {"ensemble": Engine.ENSEMBLE, "tensorrt_plan": Engine.GRAPH, "": Engine.PYTHON}
    assert engine[config.platform] is model.engine
    assert (config.backend == "python") is (model.engine is Engine.PYTHON)
    assert model.engine is not Engine.PYTHON or set(config.parameters) == set(model.numbers)
    assert model.image_input in ("", *(entry.name for entry in config.input))
    assert bool(model.graphs) == (model.engine is Engine.GRAPH)


def test_of_requests_with_labels_each_step_waits_for_the_one_before():
    """Where two steps run at once and one fails, Triton 24.10 can stop answering for good."""
    ensemble = read("ram_open")
    known = {entry.name for entry in ensemble.input}
    left = list(ensemble.ensemble_scheduling.step)
    while left:
        ready = [step for step in left if set(step.input_map.values()) <= known]
        assert len(ready) == 1
        known |= set(ready[0].output_map.values())
        left.remove(ready[0])


def test_the_labels_config_sets_the_limits_that_its_code_reads():
    parameters = {key: p.string_value for key, p in read("ram_open_labels").parameters.items()}
    assert float(parameters.pop("default_threshold")) == NEW_THRESHOLD, "as by make vocabulary"
    assert asdict(label_limits()) == {name: int(value) for name, value in parameters.items()}
    largest = read("ram_open_head").parameters["label_embeds"].string_value.split(",")[-1]
    assert int(largest) == label_limits().max_labels


@pytest.mark.parametrize("name", ["ram_maps", "ram_open_maps"])
def test_the_postprocessors_ask_for_no_more_maps_than_the_plans_take(name):
    sizes = read(name).parameters["tag_ids"].string_value
    assert int(sizes.split(",")[-1].rpartition("x")[2]) == postprocessing.MOST_MAPS


def test_maps_of_labels_take_the_labels_and_images_that_their_head_takes():
    maps, head = read("ram_open_maps").parameters, read("ram_open_head").parameters
    assert {name: value for name, value in maps.items() if name != "tag_ids"} == dict(head)


@pytest.mark.parametrize("name", ["ram_maps", "ram_open_maps"])
def test_the_graphs_of_maps_fit_their_configs(name, repository):
    config = EngineConfig.read(MODELS / name / "config.pbtxt")
    bindings = read_bindings(repository / name / "1" / "model.onnx")
    config.check(bindings)
    profile = config.profile(bindings)
    assert profile["tag_ids"].min == (1, 1) and profile["tag_ids"].max == (32, 256)
    assert profile["image_embeds"].max[0] == 32


@pytest.mark.parametrize("name", ENGINES)
def test_the_graphs_have_the_names_types_and_ranks_that_the_configs_say(name, repository):
    graph = onnx.load(repository / name / "1" / "model.onnx", load_external_data=False).graph
    for values, configured in zip(
        (graph.input, graph.output), inputs_and_outputs(name, "gpu"), strict=True
    ):
        assert [value.name for value in values] == list(configured)
        for value in values:
            tensor = value.type.tensor_type
            data_type, dims = configured[value.name]
            assert ONNX_TYPES[tensor.elem_type] == data_type
            batch, *sizes = tensor.shape.dim
            assert batch.dim_param, "the batch must be free"
            assert len(sizes) == len(dims)
            for size, dim in zip(sizes, dims, strict=True):
                assert size.dim_value > 0, "all but the batch must be fixed"
                assert dim in (-1, size.dim_value)


@pytest.mark.parametrize("name", ENGINES)
def test_gpu_engines_batch_limit_their_queue_and_use_several_instances(name):
    config = read(name)
    batching = config.dynamic_batching
    assert all(size <= config.max_batch_size for size in batching.preferred_batch_size)
    assert batching.default_queue_policy.max_queue_size >= config.max_batch_size
    cuda = config.optimization.cuda
    captured = [graph.batch_size for graph in cuda.graph_spec]
    assert cuda.graphs and captured == sorted(set(captured))
    assert {*range(1, 9), *batching.preferred_batch_size, config.max_batch_size} <= {*captured}
    assert all(not graph.input for graph in cuda.graph_spec), "sizes of a variant"
    assert config.optimization.input_pinned_memory.enable
    assert sum(group.count for group in read("ram_encoder").instance_group) > 1


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_no_config_has_what_stalls_the_batcher_before_26_08(path):
    assert not EngineConfig.read(path).starves


@pytest.mark.parametrize(
    ("settings", "starves"),
    [
        ("max_queue_delay_microseconds: 9 default_queue_policy { %s }", True),
        (
            "max_queue_delay_microseconds: 9 priority_levels: 2 "
            "priority_queue_policy { key: 2 value { %s } }",
            True,
        ),
        ("max_queue_delay_microseconds: 0 default_queue_policy { %s }", False),
        ("max_queue_delay_microseconds: 0 default_queue_policy { max_queue_size: 9 }", False),
        ("max_queue_delay_microseconds: 9 default_queue_policy { max_queue_size: 9 }", True),
        ("max_queue_delay_microseconds: 9", False),
    ],
)
def test_a_limit_of_the_queue_with_a_queue_delay_is_known(tmp_path, settings, starves):
    (tmp_path / "config.pbtxt").write_text(
        "max_batch_size: 32 dynamic_batching { "
        + settings.replace("%s", "default_timeout_microseconds: 1000")
        + " }"
    )
    assert EngineConfig.read(tmp_path / "config.pbtxt").starves is starves


QUEUES = [path for path in CONFIGS if not EngineConfig.read(path).model.ensemble_scheduling.step]


@pytest.mark.parametrize("path", QUEUES, ids=[str(path.relative_to(ROOT)) for path in QUEUES])
def test_every_step_refuses_what_its_queue_cannot_take(path):
    if "ram_open_text_encoder" in path.parts:
        return  # asked by ram_open_text alone, once at a time
    if path == CPU_ENCODER:
        return  # the doors count what waits for it: test_door.py
    policy = EngineConfig.read(path).model.dynamic_batching.default_queue_policy
    assert policy.max_queue_size and policy.default_timeout_microseconds
    assert policy.timeout_action == policy.REJECT and policy.allow_timeout_override


@pytest.mark.parametrize("profile", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_the_door_is_the_narrowest_place(profile):
    """What passes it fits into all queues behind it, so that work is not thrown away."""

    def queue(name):
        file = profile if name in ALL_ENGINES else "config.pbtxt"
        if MODELS / name / file == CPU_ENCODER:
            return math.inf
        return read(name, file).dynamic_batching.default_queue_policy.max_queue_size

    for ensemble in ("ram", "ram_open", "ram_pixels"):
        first, *others = TABLE[ensemble].steps
        assert all(queue(first) <= queue(name) for name in others)


def test_the_preprocessors_config_sets_the_limits_that_its_code_reads():
    parameters = {key: int(p.string_value) for key, p in read("ram_preprocess").parameters.items()}
    assert 0 <= parameters.pop("nice") <= 19
    assert asdict(image_limits()) == parameters


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_a_warm_up_sends_every_input_that_is_not_optional(path):
    config = EngineConfig.read(path).model
    needed = {entry.name for entry in config.input if not entry.optional}
    for sample in config.model_warmup:
        assert needed <= set(sample.inputs)
        for tensor in sample.inputs.values():
            file = path.parent / "warmup" / tensor.input_data_file
            assert not tensor.input_data_file or file.is_file()


def test_the_warm_ups_picture_is_one_string_that_the_preprocessor_decodes(repository):
    serialized = (MODELS / "ram_preprocess/warmup/image").read_bytes()
    (image,) = deserialize_bytes_tensor(serialized)
    assert preprocess(image, 96).shape == (96, 96, 3)
    assert (repository / "ram_preprocess/warmup/image").read_bytes() == serialized


def test_a_built_repository_carries_the_same_configs(repository):
    for path in MODELS.rglob("*.pbtxt"):
        text = path.read_text()
        if path.name == "cpu.pbtxt":
            text = text.replace(f"# {FLOAT32}", FLOAT32)  # which the fixture has set
        assert (repository / path.relative_to(MODELS)).read_text() == patient(text)
    for model in ("ram_preprocess", "ram_pixels_check"):
        variant = json.loads((repository / model / "1/variant.json").read_text())
        assert variant == {"image_size": 96}
