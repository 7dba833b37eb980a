"""Wrong paths are reported at once: before anything is imported that takes seconds."""

import json
import subprocess
import sys

import pytest

SLOW = ("torch", "openvino", "transformers", "onnxruntime", "sklearn", "matplotlib")
# Runs commands with stderr as it is, in one process that refuses slow imports.
RUN_ALL = f"""
import contextlib, io, json, sys
sys.modules |= dict.fromkeys({SLOW})
from ram_triton.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        status = main(arguments)
    results.append([status, shown.getvalue()])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def pointer(tmp_path_factory):
    path = tmp_path_factory.mktemp("pointer") / "ram.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    return path


def test_wrong_paths_are_reported_before_slow_imports(repository, vocabulary_folder, pointer):
    names = f"--names={vocabulary_folder}"
    lists = f"--vocabulary={vocabulary_folder}"
    there = f"--repository={repository}"
    lfs = f"--checkpoint={pointer}"
    expected = {
        ("model", "--checkpoint=/none", lists): "/none: no such file",
        ("model", lfs, lists): f"{pointer}: is a Git LFS pointer",
        ("model", "--checkpoint=/none", "--vocabulary=/none"): "/none: no such file",
        ("vocabulary", "--names=/none", "--output=/none", lfs, lists): "/none: No such file",
        ("vocabulary", names, "--output=/none", lfs, lists): f"{pointer}: is a Git LFS pointer",
        ("labels", "--names=/none", "--text-encoder=a:b", "--output=a.npy"): "/none: No such file",
        ("labels", names, "--text-encoder=/none", "--output=a.npy"): "'/none' is not a folder",
        ("text-encoder", there, "--checkpoint=/none"): "/none: no such folder",
        ("text-encoder", there, f"--checkpoint={repository}"): "config.json",
        ("text-encoder", "--repository=/none", "--checkpoint=/none"): "/none: contains no model",
        ("verify", "--repository=/none", "--checkpoint=/none"): "/none: contains no model",
        ("verify", there, "--checkpoint=/none"): "/none: no such file",
        ("bench", "--repository=/none"): "/none: contains no model",
        ("bench", there, "--checkpoint=/none"): "/none: no such file",
        ("bench", there, "--images=/none"): "/none: contains no images",
        ("plans", "--repository=/none"): "/none: contains no model",
        ("plans", "--repository=/none", "--engine=tensorrt_rtx"): "/none: contains no model",
        ("serve", "--repository=/none"): "/none: contains no model",
        ("demo", "--repository=/none"): "/none: contains no model",
        ("train", "/none"): "/none: No such file",
        ("evaluate", "/none"): "/none: No such file",
        ("evaluate", __file__, "--checkpoint=/none"): "/none: no such file",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(list(expected))],
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stdout)
    for (arguments, message), (status, shown) in zip(expected.items(), results, strict=True):
        assert status == 1 and message in shown and shown.count("\n") == 1, (arguments, shown)
