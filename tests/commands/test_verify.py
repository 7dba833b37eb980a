"""The proof of a deployment: what is installed or served, held against its checkpoint."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from ram_triton.files import sha256
from ram_triton.repository.layout import LABELS, MANIFEST, VOCABULARY
from ram_triton.server import LOOPBACK, Ports, TritonServer
from support.golden_checkpoint import golden_weights
from support.pipeline import NUM_TAGS, PICTURES, run_command

pytestmark = pytest.mark.usefixtures("one_thread")

OTHERS = ("ram_open_head", "ram_maps", "ram_open_maps")
NAMES = [
    f"{name}{of}"
    for name in ("model.onnx", "half.onnx")
    for of in ("", *(f" of {model}" for model in OTHERS))
]


@pytest.fixture
def run(checkpoint, repository, capsys):
    """Run it on the tiny RAM; returns the exit status, the table, and the lines on stderr."""

    def verify_it(*arguments, repository=repository, checkpoint=checkpoint):
        paths = ["--repository", str(repository), "--checkpoint", str(checkpoint)]
        status = run_command("verify", [*paths, *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return verify_it


@pytest.fixture
def sister(repository, tmp_path):
    """Another RAM of the same shape: its checkpoint, and what a build of it tells of it."""
    weights = golden_weights()
    weights["fc.bias"] += 0.5
    checkpoint, root = tmp_path / "sister.pth", tmp_path / "sister"
    torch.save({"model": weights}, checkpoint)
    for file in (MANIFEST, VOCABULARY):
        (root / file).parent.mkdir(parents=True)
        shutil.copy(repository / file, root / file)
    state_checkpoint(root, checkpoint)
    return root, checkpoint


def state_checkpoint(root, checkpoint):
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["checkpoint"] = {"name": checkpoint.name, "sha256": sha256(checkpoint)}
    (root / MANIFEST).write_text(json.dumps(manifest))


def change_weights(graph, name="classifier.bias", by=0.05):
    """Move the logits of a head's graph, or another result by another bias."""
    model = onnx.load(graph)
    bias = next(t for t in model.graph.initializer if name in t.name)
    values = numpy_helper.to_array(bias)
    # Not all by the same, which attention would not notice.
    moved = values + by * np.where(np.arange(values.size) % 3, 1, -1).reshape(values.shape)
    if values.size == 1:
        moved = values + by
    bias.CopyFrom(
        numpy_helper.from_array(moved.astype(numpy_helper.to_array(bias).dtype), bias.name)
    )
    data = graph.with_name(f"{graph.name}.data")
    data.unlink()
    onnx.save(model, graph, save_as_external_data=True, location=data.name)


def test_what_was_built_agrees_with_its_checkpoint(run):
    status, table, problems = run()
    assert (status, problems) == (0, [])
    lines = [line for line in table.splitlines() if "agrees" in line]
    assert [line.split("│")[2].strip() for line in lines] == NAMES
    assert "(limit 0.001)" in table and "(limit 0.1)" in table, "float32's limit and float16's"


@pytest.mark.parametrize(
    ("name", "model"), [("model.onnx", "ram_maps"), ("half.onnx", "ram_open_maps")]
)
def test_heat_maps_with_changed_weights_fail(run, copied, name, model):
    change_weights(copied / model / "1" / name, "query.bias", by=3)
    status, table, (problem,) = run(repository=copied)
    assert status == 1 and table.count("agrees") == len(NAMES) - 1
    assert problem.startswith(
        f"ram-triton verify: {name} of {model}: largest difference of a heat map's weights 0."
    )


@pytest.mark.parametrize("name", ["model.onnx", "half.onnx"])
def test_a_head_for_ones_own_labels_with_changed_weights_fails(run, copied, name):
    change_weights(copied / "ram_open_head" / "1" / name, by=1)
    status, table, problems = run(repository=copied)
    assert status == 1
    assert {line.split(": ")[1] for line in problems} == {f"{name} of ram_open_head"}
    assert table.count("agrees") == len(NAMES) - 1


def test_a_graph_with_changed_weights_fails_and_the_others_do_not(run, copied):
    change_weights(copied / "ram_head" / "1" / "model.onnx")
    status, table, (first, *others) = run(repository=copied)
    assert status == 1
    assert (
        first == "ram-triton verify: model.onnx: largest logit difference 0.05, the limit is 0.001"
    )
    assert all("model.onnx" in line for line in others)
    assert "differs │ model.onnx" in table and "agrees  │ half.onnx" in table


def test_a_format_is_compared_alone_if_asked_for(run, copied):
    change_weights(copied / "ram_head" / "1" / "model.onnx")
    status, table, _ = run("--format", "half.onnx", repository=copied)
    assert status == 0 and "model.onnx" not in table


def test_a_graph_that_no_engine_reads_is_not_passed_over(run, copied):
    (copied / "ram_head" / "1" / "model.onnx").write_bytes(b"no graph")
    status, table, (problem,) = run(repository=copied)
    assert status == 1 and problem.startswith("ram-triton verify: model.onnx: ")
    assert "not compared │ model.onnx" in table


def test_a_plan_that_cannot_be_run_here_is_not_passed_over(run, copied):
    for name in ("ram_encoder", "ram_head", *OTHERS):
        (copied / name / "1" / "model.plan").write_bytes(b"no plan")
    status, table, problems = run(repository=copied)
    assert status == 1
    names = ["model.plan", *(f"model.plan of {name}" for name in OTHERS)]
    assert [line.split(": ")[1] for line in problems] == names
    assert "not compared │ model.plan" in table and "agrees       │ model.onnx" in table


def test_half_a_pair_is_told(run, copied):
    for name in ("ram_head", *OTHERS):
        (copied / "ram_encoder" / "1" / "model.plan").write_bytes(b"no plan")
        status, _, (problem,) = run(repository=copied)
        assert status == 1
        assert f"{name}/1/model.plan is missing: run 'make plans'" in problem
        (copied / name / "1" / "model.plan").write_bytes(b"no plan")


def test_int8_that_was_never_built_is_told_with_what_it_takes(run):
    status, _, (problem,) = run("--format", "int8.xml")
    assert status == 1
    assert problem.endswith("int8.xml is missing: run 'make model' again, with INT8=DIR")


def test_a_checkpoint_that_it_was_not_built_from_is_refused(run, repository, sister):
    status, table, (problem,) = run(checkpoint=sister[1])
    assert (status, table) == (1, "")
    assert "was built from another checkpoint, 'tiny.pth' with SHA-256" in problem


@pytest.mark.parametrize("damage", [None, "{", "{}", "[]"])
def test_a_repository_without_a_model_or_with_a_damaged_manifest_is_told(run, tmp_path, damage):
    if damage:
        (tmp_path / MANIFEST).parent.mkdir(parents=True)
        (tmp_path / MANIFEST).write_text(damage)
    status, _, (problem,) = run(repository=tmp_path)
    assert status == 1
    assert ("is damaged" if damage else "contains no model: run 'make model'") in problem


def test_limits_that_the_manifest_lost_are_told(run, copied):
    manifest = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps(manifest | {"half": {"precision": "float16"}}))
    status, _, (problem,) = run(repository=copied)
    assert status == 1
    assert problem == "ram-triton verify: the manifest's 'half' is damaged: run 'make model' again"


def test_missing_files_are_told(run, tmp_path):
    assert "no.pth: no such file" in run(checkpoint=tmp_path / "no.pth")[2][0]
    assert "contains no images" in run("--images", tmp_path)[2][0]


def test_a_picture_that_cannot_be_read_is_told(run, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    status, _, (problem,) = run("--images", tmp_path)
    assert status == 1 and "broken.jpg: cannot be used to compare" in problem


def test_the_answers_of_a_server_agree_with_the_checkpoint(run, server):
    status, table, problems = run("--server", server.grpc, "--images", PICTURES)
    assert (status, problems) == (0, [])
    assert f"agrees │ {server.grpc}" in table
    assert f"agrees │ {server.grpc}, ram_open " in table
    assert f"agrees │ {server.grpc}, ram_pixels " in table
    assert table.count("ram_openvino f32") == 5 and "(limit 0.001)" in table
    for model in ("ram", "ram_open"):
        assert f"agrees │ {server.grpc}, maps of {model} " in table and "(limit 0.0001)" in table


@pytest.mark.slow
def test_a_server_whose_heat_maps_are_others_fails(run, copied):
    change_weights(copied / "ram_maps" / "1" / "model.onnx", "query.bias")
    with TritonServer(copied) as server:
        status, table, (problem,) = run("--server", server.grpc, repository=copied)
    assert status == 1 and f"agrees  │ {server.grpc}, maps of ram_open " in table
    place = f"ram-triton verify: {server.grpc}, maps of ram: "
    assert problem.startswith(place + "largest difference of a heat map's weights 0.")


def test_a_server_whose_head_for_ones_own_labels_is_another_fails(run, copied):
    """The tags include two that are the same name but for '_': each can be asked for."""
    for file in (copied / VOCABULARY, copied / LABELS / "vocabulary.json"):
        text = file.read_text().replace('"tag 1"', '"hot dog"').replace('"tag 2"', '"hot_dog"')
        file.write_text(text)
    change_weights(copied / "ram_open_head" / "1" / "model.onnx")
    with TritonServer(copied) as server:
        status, table, problems = run("--server", server.grpc, repository=copied)
    assert status == 1 and f"agrees  │ {server.grpc} " in table
    place = f"ram-triton verify: {server.grpc}, ram_open: "
    assert problems[0] == place + "largest logit difference 0.05, the limit is 0.001"


def test_a_server_of_another_model_fails_and_by_how_much_is_told(run, server, sister):
    root, checkpoint = sister
    status, _, problems = run("--server", server.grpc, repository=root, checkpoint=checkpoint)
    assert status == 1
    assert f"{server.grpc}: largest logit difference 0.5, the limit is 0.001" in problems[0]


def test_a_server_that_knows_other_tags_fails(run, server, copied):
    vocabulary = copied / VOCABULARY
    vocabulary.write_text(vocabulary.read_text().replace('"tag": "tag', '"tag": "other'))
    status, _, (problem,) = run("--server", server.grpc, repository=copied)
    assert status == 1 and "is called 'tag" in problem and ", not 'other" in problem


def test_a_server_with_fewer_tags_fails(run, server, copied, tmp_path):
    weights = golden_weights()
    weights["label_embed"] = torch.cat([weights["label_embed"], weights["label_embed"][:1]])
    torch.save({"model": weights}, tmp_path / "larger.pth")
    state_checkpoint(copied, tmp_path / "larger.pth")
    entries = json.loads((copied / VOCABULARY).read_text())
    (copied / VOCABULARY).write_text(json.dumps([*entries, entries[0] | {"tag": "one more"}]))
    status, _, (problem,) = run(
        "--server", server.grpc, repository=copied, checkpoint=tmp_path / "larger.pth"
    )
    assert status == 1
    assert "another model" in problem and f"over {NUM_TAGS + 1} tags" in problem


def test_no_server_is_one_line(run):
    port = Ports.free().grpc
    status, table, problems = run("--server", f"{LOOPBACK}:{port}")
    assert (status, table, len(problems)) == (1, "", 1)
    assert problems[0].startswith(f"ram-triton verify: {LOOPBACK}:{port}: ")
