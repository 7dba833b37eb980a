"""What the Python models share: when names are equal, and how parameters are read."""

import json
from pathlib import Path

import pytest
from ram_triton.server_code import (
    ImageLimits,
    LabelLimits,
    RequestError,
    fold,
    read_parameter,
    request,
    spell,
)

ROOT = Path(__file__).parents[2]


def config(**parameters):
    """A model's config as Triton hands it to a Python model."""
    entries = {name: {"string_value": value} for name, value in parameters.items()}
    return json.dumps({"name": "ram", "parameters": entries})


@pytest.mark.parametrize(
    "name", ["hot dog", "Hot Dog", "hot_dog", " hot  dog ", "hot dog.", "hot\tdog . ", "HOT_DOG.."]
)
def test_names_that_differ_in_case_space_underscores_and_final_stops_are_the_same(name):
    assert (fold(name), spell(name)) == ("hot dog", "hot dog")


def test_other_names_differ():
    names = ["hot dog", "hotdog", "hot-dog", "hot dogs", "st. bernard", "st bernard", "热狗"]
    assert len({fold(name) for name in names}) == len(names)


def test_german_names_are_the_same_whatever_their_case_and_spelt_as_they_are():
    assert fold("Straße") == fold("STRASSE")
    assert spell("Straße") == "straße"


@pytest.mark.parametrize("text", ["", " ", "_", " ._. "])
def test_a_text_without_a_letter_is_not_a_name(text):
    assert fold(text) == ""


def test_a_parameter_is_read_as_its_kind():
    assert read_parameter(config(size="12", share="0.5"), "size", int) == 12
    assert read_parameter(config(size="12", share="0.5"), "share", float) == 0.5


@pytest.mark.parametrize(
    ("limits", "parameters", "message"),
    [
        (ImageLimits, {"max_bytes": "9"}, "the parameter 'max_pixels' is missing"),
        (ImageLimits, {"max_bytes": "9 MB"}, "the parameter 'max_bytes' is '9 MB' (invalid"),
        (LabelLimits, {"max_labels": "9"}, "the parameter 'max_new_labels' is missing"),
    ],
)
def test_a_parameter_that_is_missing_or_wrong_is_named(limits, parameters, message):
    with pytest.raises(ValueError) as refused:
        limits.read(config(**parameters))
    assert str(refused.value).startswith(f"config.pbtxt: {message}")


@pytest.mark.parametrize("name", ["request.py", "postprocess.py"])
def test_files_that_models_share_are_links_to_one_file(name):
    (home,) = (ROOT / "model_repository").glob(f"ram_postprocess/1/{name}")
    files = [*ROOT.glob(f"model_repository/*/1/{name}"), *ROOT.glob(f"build/*/*/1/{name}")]
    others = [file for file in files if file != home]
    assert others and not home.is_symlink()
    for file in others:
        assert file.is_symlink() and file.resolve() == home


@pytest.mark.parametrize(
    "parameters", ["", "{}", '{"binary_data_output": true}', '{"triton_x": 1}']
)
def test_what_the_protocols_add_is_no_parameter_of_ours(parameters):
    request.require_known(parameters)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("treshold", "'treshold': unknown parameter; did you mean 'threshold'?"),
        ("topk", "'topk': unknown parameter; did you mean 'top_k'?"),
        ("colour", "'colour': unknown parameter"),
        ("threshold", "threshold: is an input of the model, and not a parameter"),
    ],
)
def test_a_parameter_is_refused_by_its_name(name, message):
    with pytest.raises(RequestError) as refused:
        request.require_known(json.dumps({name: 1}))
    assert str(refused.value) == message


def test_a_fault_is_one_line_without_paths():
    error = FileNotFoundError(2, "No such\nfile", "/srv/models/ram_head/1/model.onnx")
    assert request.describe(error) == "FileNotFoundError: [Errno 2] No such file: '…'"
