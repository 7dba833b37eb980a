"""The doctor on facts of GPUs: plans that no longer fit, memory."""

import hashlib
import json
import shutil
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper
from ram_triton.doctor.artefacts import check_plans
from ram_triton.doctor.checks import check_gpu_ids
from ram_triton.doctor.memory import check_gpu_memory
from ram_triton.doctor.repository_view import RepositoryView
from ram_triton.files import sha256
from ram_triton.gpus import Gpu
from ram_triton.repository.layout import GPU, OPTIONAL_MODELS

GIB = 2**30
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", 80 * GIB, 79 * GIB)
TENSORRT = "10.16.1.11"


@pytest.fixture
def planned(copied):
    """A repository whose plans' facts are as they should be; the plans' own bytes are no plan."""
    variant = json.loads((copied / "ram/1/manifest.json").read_text())["variant"]
    tokens = [10, variant["image_width"]]
    profiles = {
        "ram_encoder": {"pixels": ((1, 16, 32), [96, 96, 3])},
        "ram_head": {"image_embeds": ((1, 16, 32), tokens)},
        "ram_open_head": {
            "image_embeds": ((1, 1, 32), tokens),
            "label_embeds": ((1, 256, 5000), [variant["label_width"]]),
        },
        "ram_maps": {
            "image_embeds": ((1, 8, 32), tokens),
            "tag_ids": ((1, 8, 32), (1, 8, 256)),
        },
        "ram_open_maps": {
            "image_embeds": ((1, 1, 32), tokens),
            "label_embeds": ((1, 256, 5000), [variant["label_width"]]),
            "tag_ids": ((1, 1, 32), (1, 8, 256)),
        },
    }
    assert list(profiles) == [model.name for model in RepositoryView.read(copied, GPU).planned]
    for model, inputs in profiles.items():
        plan = f"bytes in place of a plan of {model}".encode()
        (copied / model / "1" / "model.plan").write_bytes(plan)
        write_facts(
            copied,
            model,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            graph_sha256=sha256(copied / model / "1" / "half.onnx"),
            weights_sha256=sha256(copied / model / "1" / "half.onnx.data"),
            tensorrt=TENSORRT,
            flavour="tensorrt",
            gpu=H100.name,
            compute_capability="9.0",
            precision="float16",
            builder_level=3,
            version_compatible=False,
            hardware_compatible=False,
            profiles={
                tensor: {
                    kind: [size, *([sizes[place]] if tensor == "tag_ids" else sizes)]
                    for place, (kind, size) in enumerate(
                        zip(("min", "opt", "max"), ranges, strict=True)
                    )
                }
                for tensor, (ranges, sizes) in inputs.items()
            },
        )
    return copied


def write_facts(root, model, **facts):
    path = root / model / "1" / "plan.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | facts))


def diagnose(root, gpus=(H100,), tensorrt=TENSORRT, model="ram_head"):
    """(status, text, remedy) of each finding on a model's plan; the others' stay fine."""
    findings = list(check_plans(RepositoryView.read(root, GPU), gpus, tensorrt))
    return [(str(f.status), f.text, f.remedy) for f in findings if f.subject == f"plan of {model}"]


def test_a_plan_of_this_graph_gpu_tensorrt_and_profiles_is_fine(planned):
    assert diagnose(planned) == [("fine", f"float16, TensorRT {TENSORRT}, {H100.name}", "")]


def test_a_missing_plan_is_told_with_the_command_that_builds_it(planned):
    (planned / "ram_head/1/model.plan").unlink()
    ((status, text, remedy),) = diagnose(planned)
    assert (status, text) == ("error", "model.plan is missing")
    assert "make plans" in remedy


def test_a_plan_of_unknown_origin_is_a_warning(planned):
    (planned / "ram_head/1/plan.json").unlink()
    ((status, text, _),) = diagnose(planned)
    assert status == "warning" and "origin" in text


@pytest.mark.parametrize(
    ("facts", "status", "part"),
    [
        ({"plan_sha256": "0"}, "error", "not the file that plan.json describes"),
        ({"graph_sha256": "0"}, "error", "built of another graph"),
        ({"weights_sha256": "0"}, "error", "built of other weights"),
        ({"weights_sha256": None}, "error", "built of other weights"),
        ({"tensorrt": "10.3.0.26"}, "error", f"built by TensorRT 10.3.0.26, this is {TENSORRT}"),
        ({"tensorrt": "10.3.0.26", "version_compatible": True}, "warning", "version-compatible"),
        ({"version_compatible": True}, "warning", "version-compatible"),
        ({"tensorrt": "11.0.0.114", "version_compatible": True}, "error", "by TensorRT 11"),
        ({"tensorrt": "10.17.0.2", "version_compatible": True}, "error", "by TensorRT 10.17.0.2"),
        ({"flavour": "tensorrt_rtx"}, "error", "tensorrt_rtx, which Triton does not load"),
        ({"gpu": "NVIDIA L4", "compute_capability": "8.9"}, "error", "built for NVIDIA L4 (8.9)"),
        ({"gpu": "NVIDIA H200"}, "warning", "this GPU is NVIDIA H100"),
        ({"profiles": {}}, "error", "no profile for the input image_embeds"),
        ({"profiles": {"image_embeds": {"min": [1]}}}, "error", "plan.json is damaged"),
    ],
)
def test_a_stale_plan_is_told_with_the_reason_and_the_command(planned, facts, status, part):
    write_facts(planned, "ram_head", **facts)
    ((found, text, remedy),) = diagnose(planned)
    assert (found, "plans" in remedy) == (status, True)
    assert part in text


@pytest.mark.parametrize(("here", "status"), [("8.6", "fine"), ("10.0", "fine"), ("7.5", "error")])
def test_a_hardware_compatible_plan_runs_from_ampere_on(planned, here, status):
    write_facts(planned, "ram_head", hardware_compatible=True)
    ((found, _, _),) = diagnose(planned, (replace(H100, compute_capability=here),))
    assert found == status


def test_a_plan_is_not_compared_with_a_gpu_that_no_instance_uses(planned):
    config = planned / "ram_head" / "config.pbtxt"
    text = config.read_text()
    kind = "{ count: 1 kind: KIND_GPU }"
    assert kind in text
    config.write_text(text.replace(kind, "{ count: 1 kind: KIND_GPU gpus: [ 0 ] }"))
    other = Gpu(1, "Tesla T4", "7.5", 15 * GIB, 15 * GIB)
    ((status, _, _),) = diagnose(planned, (H100, other))
    assert status == "fine"


def test_a_config_that_allows_larger_batches_than_the_plan_is_told(planned):
    config = planned / "ram_head" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 64"))
    ((status, text, remedy),) = diagnose(planned)
    takes, asked = "1 to 32, fastest at 16", "1 to 64, fastest at 16"
    text_of_both = f"takes image_embeds of {takes}; the config asks for {asked}"
    assert (status, text) == ("error", text_of_both)
    assert "make plans" in remedy


@pytest.mark.parametrize(
    ("sizes", "status", "part"),
    [
        ("1, 256, 6000", "error", "1 to 5000, fastest at 256; the config asks for 1 to 6000"),
        ("1, 512, 5000", "warning", "256; the config asks for 1 to 5000, fastest at 512"),
        ("1, 256, 4000", "warning", "1 to 5000, fastest at 256; the config asks for 1 to 4000"),
        ("many", "error", "the parameter 'label_embeds' must be three sizes"),
    ],
)
def test_labels_that_the_config_allows_and_the_plan_does_not_are_told(planned, sizes, status, part):
    config = planned / "ram_open_head" / "config.pbtxt"
    config.write_text(config.read_text().replace("1, 256, 5000", sizes))
    ((found, text, _),) = diagnose(planned, model="ram_open_head")
    assert found == status and part in text


def test_a_gpu_that_is_not_there_is_told_where_a_config_names_it(planned):
    config = planned / "ram_open_head" / "config.pbtxt"
    kind = "{ count: 1 kind: KIND_GPU }"
    assert kind in config.read_text()
    config.write_text(config.read_text().replace(kind, "{ count: 1 kind: KIND_GPU gpus: [ 7 ] }"))
    (finding,) = check_gpu_ids(RepositoryView.read(planned, GPU), (H100,))
    assert str(finding.status) == "error" and "names GPU 7" in finding.text
    assert "name 0" in finding.remedy


def test_profiles_of_another_image_size_are_told(planned):
    shapes = {kind: [batch, 145, 512] for kind, batch in (("min", 1), ("opt", 8), ("max", 32))}
    write_facts(planned, "ram_head", profiles={"image_embeds": shapes})
    ((status, text, _),) = diagnose(planned)
    assert status == "error"
    assert text.startswith("takes image_embeds of 1x145x512 to 32x145x512")


def test_without_a_tensorrt_the_version_is_left_open_and_said_so(planned):
    ((status, text, remedy),) = diagnose(planned, tensorrt=None)
    assert status == "unknown" and TENSORRT in text and "serving image" in remedy


def estimate(root, gpu):
    (finding,) = check_gpu_memory(RepositoryView.read(root, GPU), [gpu])
    return finding


@pytest.mark.parametrize(
    ("free", "status"), [(79 * GIB, "fine"), (513 * 2**20, "warning"), (2**20, "error")]
)
def test_gpu_memory_is_compared_with_plans_and_instances(planned, free, status):
    finding = estimate(planned, replace(H100, free=free))
    assert str(finding.status) == status
    for part in ("ram_encoder", "ram_head", "ram_open_head", "ram_maps", "ram_open_maps"):
        assert part in finding.text
    assert "2 ×" in finding.text and "1 ×" in finding.text, "the instances of encoder and heads"
    assert status == "fine" or "instance_group" in finding.remedy


def test_more_instances_are_estimated_to_need_more(planned):
    few = estimate(planned, H100).text
    config = planned / "ram_encoder" / "config.pbtxt"
    config.write_text(config.read_text().replace("{ count: 2", "{ count: 200"))
    many = estimate(planned, replace(H100, free=GIB))
    assert "200 ×" in many.text and "200 ×" not in few
    assert str(many.status) == "warning"


def test_more_labels_are_estimated_to_need_more(planned):
    config = planned / "ram_open_head" / "config.pbtxt"
    config.write_text(config.read_text().replace("1, 256, 5000", "1, 256, 5000000"))
    many = estimate(planned, replace(H100, free=4 * GIB))
    assert str(many.status) == "warning"


def test_memory_that_the_driver_does_not_tell_is_left_open(planned):
    finding = estimate(planned, replace(H100, free=None))
    assert str(finding.status) == "unknown" and "nvidia-smi" in finding.remedy


def test_the_plan_of_a_text_encoder_that_was_added_is_looked_for_too(planned):
    def subjects():
        findings = check_plans(RepositoryView.read(planned, GPU), (H100,), TENSORRT)
        return {f.subject: (str(f.status), f.text) for f in findings}

    assert {status for status, _ in subjects().values()} == {"fine"}
    for model in ("ram_open_text", "ram_open_text_encoder"):
        shutil.copytree(OPTIONAL_MODELS / model, planned / model)
    missing = ("error", "model.plan is missing")
    assert subjects()["plan of ram_open_text_encoder"] == missing
    plan, graph = b"bytes in place of a plan", planned / "ram_open_text_encoder/1/model.onnx"
    (planned / "ram_open_text_encoder/1/model.plan").write_bytes(plan)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, ["sentences", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    onnx.save(helper.make_model(helper.make_graph([], "empty", inputs, [])), graph)
    shapes = {"min": [1, 2], "opt": [128, 16], "max": [128, 77]}
    write_facts(
        planned,
        "ram_open_text_encoder",
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        graph_sha256=sha256(graph),
        weights_sha256=None,
        tensorrt=TENSORRT,
        flavour="tensorrt",
        gpu=H100.name,
        compute_capability="9.0",
        precision="float32",
        builder_level=3,
        version_compatible=False,
        hardware_compatible=False,
        profiles={"input_ids": shapes, "attention_mask": shapes},
    )
    assert {status for status, _ in subjects().values()} == {"fine"}
    (planned / "ram_open_text_encoder/1/model.onnx.data").write_bytes(b"other weights")
    status, text = subjects()["plan of ram_open_text_encoder"]
    assert (status, text) == ("error", "was built of other weights than this repository's")
