"""The table of models against what the server's own files read, and who else names models."""

import dataclasses
import re

import pytest
from ram_triton.repository.layout import MODELS, PROJECT, Engine
from ram_triton.server.api import RAM
from ram_triton.server.drain import OWN_STEPS
from ram_triton.server_code import ImageLimits, LabelLimits


@pytest.mark.parametrize(
    ("model", "limits"), [("ram_preprocess", ImageLimits), ("ram_open_labels", LabelLimits)]
)
def test_the_doctor_checks_every_limit_that_a_model_reads_from_its_config(model, limits):
    read = {field.name: field.type for field in dataclasses.fields(limits)}
    numbers = MODELS[model].numbers
    assert read == {name: numbers[name] for name in read}


def test_an_ensemble_is_drained_let_through_the_gateway_and_described():
    ensembles = {name for name, model in MODELS.items() if model.engine is Engine.ENSEMBLE}
    gateway = (PROJECT / "deploy" / "gateway" / "envoy.yaml").read_text()
    public = [set(names.split("|")) for names in re.findall(r"\bram(?:\|\w+)+", gateway)]
    assert public == [ensembles, ensembles]  # over HTTP, and over gRPC
    assert {RAM, *OWN_STEPS} == ensembles
    api = (PROJECT / "docs" / "api.md").read_text()
    assert all(f"`{name}`" in api for name in ensembles)
