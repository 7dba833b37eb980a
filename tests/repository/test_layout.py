"""The table of models against what the server's own files read."""

import dataclasses

import pytest
from ram_triton.repository.layout import MODELS
from ram_triton.server_code import ImageLimits, LabelLimits


@pytest.mark.parametrize(
    ("model", "limits"), [("ram_preprocess", ImageLimits), ("ram_open_labels", LabelLimits)]
)
def test_the_doctor_checks_every_limit_that_a_model_reads_from_its_config(model, limits):
    read = {field.name: field.type for field in dataclasses.fields(limits)}
    numbers = MODELS[model].numbers
    assert read == {name: numbers[name] for name in read}
