"""The doctor: what is wrong with configs, and what to do."""

import pytest
from ram_triton.doctor.checks import check_configs
from ram_triton.doctor.repository_view import RepositoryView
from ram_triton.repository.layout import CPU, GPU
from support.doctor_runs import examine


def test_more_labels_than_the_heads_plan_takes_are_an_error(copied):
    config = copied / "ram_open_labels" / "config.pbtxt"
    config.write_text(config.read_text().replace('"5000"', '"6000"'))
    status, found = examine(copied, "--profile", "gpu")
    text = "ram_open_labels allows 6000 labels, ram_open_head's plans take 5000"
    assert (status, found["configs"][1]) == (2, text)


def test_an_ensemble_from_before_heat_maps_is_a_warning(copied):
    config = copied / "ram_pixels" / "config.pbtxt"
    config.write_text(config.read_text().replace('{ name: "maps" ', '{ name: "places" '))
    (finding,) = check_configs(RepositoryView.read(copied, CPU))
    assert (str(finding.status), "restore the project's config" in finding.remedy) == (
        "warning",
        True,
    )
    text = "ram_pixels/config.pbtxt is from before heat maps: it has no output 'maps'"
    assert finding.text == text


@pytest.mark.parametrize(
    ("model", "usual"), [("ram_maps", "1, 8, 256"), ("ram_open_maps", "1x1, 1x8, 32x256")]
)
def test_plans_of_maps_that_take_fewer_tags_than_they_are_asked_for_are_an_error(
    copied, model, usual
):
    config = copied / model / "config.pbtxt"
    assert f'"{usual}"' in config.read_text()
    config.write_text(config.read_text().replace(usual, usual.replace("256", "64")))
    (finding,) = check_configs(RepositoryView.read(copied, GPU))
    assert str(finding.status) == "error"
    assert "plans take 64 tags per image, the postprocessor asks for up to 256" in finding.text


def test_a_config_that_does_not_parse_is_named_with_its_place(copied):
    config = copied / "ram_head" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: many"))
    _, found = examine(copied)
    assert found["configs"][1].startswith("ram_head/configs/cpu.pbtxt: 5:17")


def test_int8_that_the_last_build_left_out_is_told_with_both_remedies(copied):
    config = copied / "ram_head" / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("model.onnx", "int8.xml", 1))
    status, found = examine(copied)
    assert status == 2 and found["configs"] == [
        "error",
        "ram_head/configs/cpu.pbtxt names ram_head/1/int8.xml, which is missing",
        "run 'make model' with INT8=DIR, or name model.onnx in ram_head/configs/cpu.pbtxt",
    ]


def test_a_limit_that_is_no_number_is_told(copied):
    config = copied / "ram_preprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace('"20971520"', '"20 MB"'))
    status, found = examine(copied)
    assert status == 2
    text = "ram_preprocess/config.pbtxt: the parameter 'max_bytes' is '20 MB', not a whole number"
    assert found["configs"][1] == text


@pytest.mark.parametrize(
    ("model", "name", "good", "bad", "what"),
    [
        ("ram_open_labels", "max_new_labels", "1000", "many", "a whole number"),
        ("ram_open_labels", "default_threshold", "0.5", "half", "a number"),
        ("ram_open_labels", "default_threshold", "0.5", "nan", "a number"),
    ],
)
def test_every_number_that_a_python_model_reads_is_checked(copied, model, name, good, bad, what):
    config = copied / model / "config.pbtxt"
    parameter = f'"{name}" value {{ string_value: "%s" }}'
    assert parameter % good in config.read_text()
    config.write_text(config.read_text().replace(parameter % good, parameter % bad))
    status, found = examine(copied)
    text = f"{model}/config.pbtxt: the parameter '{name}' is '{bad}', not {what}"
    assert (status, found["configs"][1]) == (2, text)


def test_a_step_that_takes_smaller_batches_than_the_ensemble_is_told(copied):
    config = copied / "ram_postprocess" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 8"))
    _, found = examine(copied)
    assert "max_batch_size 8 is below the ensemble's 32" in found["configs"][1]


@pytest.mark.parametrize(
    ("model", "old", "new", "status", "text"),
    [
        ("ram_head/configs/cpu.pbtxt", '"ram_openvino"', '"openvino"', 2, "is NVIDIA's"),
        ("ram_head/config.pbtxt", "batch_size: 24", "batch_size: 64", 2, "a graph_spec of 64"),
        (
            "ram_encoder/config.pbtxt",
            "max_queue_delay_microseconds: 0",
            "max_queue_delay_microseconds: 9",
            1,
            "slows the batcher to a stall",
        ),
    ],
)
def test_settings_under_which_triton_stalls_or_does_not_start_are_told(
    copied, model, old, new, status, text
):
    config = copied / model
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    view = RepositoryView.read(copied, CPU if "cpu" in model else GPU)
    (finding,) = check_configs(view)
    assert text in finding.text and str(finding.status) == ("error" if status == 2 else "warning")


def test_a_picture_for_the_warm_up_that_is_missing_is_told(copied):
    (copied / "ram_preprocess/warmup/image").unlink()
    (finding,) = check_configs(RepositoryView.read(copied, GPU))
    assert "names ram_preprocess/warmup/image, which is missing" in finding.text
