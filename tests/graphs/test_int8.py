"""INT8 for the CPU: made on request, held against PyTorch, served by one setting, verified."""

import json
import sys

import numpy as np
import openvino
import pytest
from ram_triton.build import BuildRequest, build
from ram_triton.parity.limits import INT8_LIMITS
from ram_triton.repository.layout import INT8_ENCODER, INT8_HEAD, MANIFEST
from ram_triton.server import TritonServer
from support.pipeline import PICTURES, copy_models, run_command

FILES = [path.with_suffix(end) for path in (INT8_ENCODER, INT8_HEAD) for end in (".xml", ".bin")]


def matrices(path):
    """Return a graph's constants that are matrices."""
    return [
        op
        for op in openvino.Core().read_model(path).get_ops()
        if op.get_type_name() == "Constant"
        and op.get_output_size() == 1
        and len(shape := op.get_output_shape(0)) == 2
        and min(shape) > 1
    ]


def test_the_manifest_has_the_files_and_how_far_they_agree(quantised):
    manifest = json.loads((quantised / MANIFEST).read_text())
    assert {str(path) for path in FILES} <= manifest["artefacts"].keys()
    assert manifest["int8"]["limits"] == INT8_LIMITS.as_dict()
    measured = manifest["int8"]["measured"]
    assert 1e-4 < measured["largest_logit_difference"] <= INT8_LIMITS.logit_difference
    assert measured["tag_f1"] >= INT8_LIMITS.tag_f1


@pytest.mark.parametrize("path", [INT8_ENCODER, INT8_HEAD], ids=["encoder", "head"])
def test_the_products_with_weights_are_in_int8(quantised, path):
    kinds = [weights.get_element_type().get_type_name() for weights in matrices(quantised / path)]
    assert kinds.count("i8") > len(kinds) / 2


@pytest.mark.parametrize("path", [INT8_ENCODER, INT8_HEAD], ids=["encoder", "head"])
def test_no_processor_adds_two_products_to_more_than_16_bits(quantised, path):
    """Without VNNI sums of an unsigned byte times a weight, two at once, stop at 32,767."""
    weights = [one.data for one in matrices(quantised / path) if one.data.dtype == np.int8]
    assert 2 * 255 * max(np.abs(one.astype(int)).max() for one in weights) < 2**15


@pytest.mark.slow
def test_the_server_runs_them_and_passes_verification(quantised, checkpoint, capsys):
    common = ["--repository", str(quantised), "--checkpoint", str(checkpoint)]
    assert run_command("verify", [*common, "--format", "int8.xml"]) == 0
    log = []
    with TritonServer(quantised, log=log.append) as server:
        assert run_command("verify", [*common, "--server", server.grpc]) == 0
    assert "Triton, ram_openvino INT8" in capsys.readouterr().out
    told = [line for line in log if "int8.xml runs on the CPU" in line]
    assert len(told) == 2


@pytest.mark.usefixtures("exported_before")
def test_a_build_without_them_leaves_none_of_another_model(
    quantised, checkpoint, vocabulary_folder, tmp_path
):
    copied = copy_models(quantised, tmp_path / "models")
    build(BuildRequest(checkpoint, vocabulary_folder, copied, PICTURES, precision="none"))
    assert not any((copied / path).exists() for path in FILES)


@pytest.mark.parametrize("missing", ["nncf", "pictures"])
def test_what_is_missing_is_told_before_the_build(
    missing, checkpoint, vocabulary_folder, tmp_path, capsys, monkeypatch
):
    if missing == "nncf":
        monkeypatch.setitem(sys.modules, "nncf", None)
    arguments = [
        "--checkpoint",
        checkpoint,
        "--vocabulary",
        vocabulary_folder,
        "--int8",
        PICTURES if missing == "nncf" else tmp_path,
        "--repository",
        tmp_path / "models",
    ]
    assert run_command("model", list(map(str, arguments))) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert {"nncf": "NNCF is missing", "pictures": "contains no images"}[missing] in error
