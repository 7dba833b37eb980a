"""The measurement of a full-size build: its steps are those that the build tells of."""

import pytest
from experiments.full_size import MAKE_MODEL, run


@pytest.mark.slow
def test_each_step_of_make_model_is_timed_in_its_turn(checkpoint, vocabulary_folder, tmp_path):
    arguments = (
        "--checkpoint",
        checkpoint,
        "--vocabulary",
        vocabulary_folder,
        "--repository",
        tmp_path / "models",
    )
    measured = list(run(["ram_triton", "model"], MAKE_MODEL, *arguments))
    assert [step for step, _, _ in measured] == list(MAKE_MODEL)
    assert all(memory > 1e8 for _, _, memory in measured)
    assert all(seconds > 0.01 for _, seconds, _ in measured), "a line ended two steps"
