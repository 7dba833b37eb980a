"""The measurement of a full-size build: its steps are those that the manifest has."""

import pytest
from experiments.full_size import measure_build


@pytest.mark.slow
def test_each_step_of_make_model_has_its_time_and_memory(checkpoint, vocabulary_folder, tmp_path):
    arguments = "--checkpoint", checkpoint, "--vocabulary", vocabulary_folder
    models = tmp_path / "models"
    *steps, rest, whole = measure_build(*arguments, "--repository", models, repository=models)
    assert [step.step.removeprefix("make model: ") for step in steps] == [
        "load the checkpoint",
        "export to ONNX",
        "compute logits and heat maps in PyTorch",
        "compare the float32 graphs with PyTorch",
        "make the float16 graphs for TensorRT",
        "compare the float16 graphs with PyTorch",
    ]
    assert all(step.seconds > 0 for step in [*steps, rest])
    assert all(1e8 < step.peak_bytes <= whole.peak_bytes for step in steps)
