"""Figures of heat maps: what they say of right and wrong ones, and of boxes in COCO's format."""

import json

import numpy as np
import pytest
from experiments import heat_maps
from experiments.heat_maps import BACKGROUNDS, annotated, box_mask, find_place, make_background
from PIL import Image
from ram_triton.cli import run_module
from support.pipeline import PICTURES

SIZE, SIDE = 64, 4


def run(*arguments):
    return run_module("experiments.heat_maps", heat_maps, [*map(str, arguments)])


@pytest.fixture
def boxes(tmp_path):
    """A file of COCO's format: an apple in the left half, a category that no tag names, a crowd."""
    with Image.open(PICTURES / "apple.png") as picture:
        width, height = picture.size
    content = {
        "images": [{"id": 1, "file_name": "apple.png", "width": width, "height": height}],
        "categories": [{"id": 5, "name": "tag 3"}, {"id": 6, "name": "zeppelin"}],
        "annotations": [
            {"image_id": 1, "category_id": 5, "bbox": [0, 0, width / 2, height]},
            {"image_id": 1, "category_id": 6, "bbox": [0, 0, 9, 9]},
            {"image_id": 1, "category_id": 5, "iscrowd": 1, "bbox": [0, 0, width, height]},
        ],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    return file


def test_missing_data_are_reported_with_the_command_that_makes_them(tmp_path, capsys):
    assert run("--data", tmp_path) == 1
    assert capsys.readouterr().err == (
        f"experiments.heat_maps: {tmp_path}: contains no data set; "
        "'make runs/demo/features.npy' makes it\n"
    )


def test_a_users_boxes_are_read_and_every_way_is_measured_on_them(
    boxes, checkpoint, vocabulary_folder, capsys
):
    own = "--checkpoint", checkpoint, "--vocabulary", vocabulary_folder
    assert run(*own, "--coco", boxes, PICTURES) == 0
    title, _, head, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "annotated pictures, 1 tags:"
    table = {cells[1].strip(): cells[2:-1] for cells in (row.split("|") for row in rows if row)}
    assert len(head.split("|")) == 2 + 1 + len(heat_maps.COLUMNS)
    assert {"layer 1, mean of heads", "layer 2, mean of heads", "all layers, rolled out"} <= {
        *table
    }
    assert [name for name in table if name.startswith("as served")]
    assert all(0 <= float(cell) <= 1 for cells in table.values() for cell in cells)


def test_boxes_are_of_the_tags_that_the_vocabulary_has(boxes, vocabulary):
    (scene,) = annotated(boxes, PICTURES, vocabulary, SIZE)
    assert scene.pixels.shape == (SIZE, SIZE, 3)
    assert [*scene.masks] == [3]
    assert scene.masks[3].sum() == SIZE * SIZE / 2 and scene.masks[3][:, : SIZE // 2].all()


@pytest.mark.parametrize(
    ("content", "words"),
    [("[]", "is not a file of COCO's boxes"), ("{", "is not a file of COCO's boxes")],
)
def test_other_files_are_refused_in_one_line(content, words, tmp_path, checkpoint, capsys):
    file = tmp_path / "boxes.json"
    file.write_text(content)
    assert run("--coco", file, PICTURES) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}: {words}" in line


def test_small_boxes_have_a_pixel_at_least_and_stay_in_the_picture():
    for box in ([0, 0, 0.1, 0.1], [639.9, 479.9, 5, 5], [-3, 470, 700, 100]):
        mask = box_mask(box, (640, 480), SIZE)
        assert mask.any()
    assert mask[-2:].all() and not mask[:-2].any()


def measured(weights, mask):
    figures = heat_maps.judge(weights.astype(np.float32), mask)
    return dict(zip(heat_maps.COLUMNS, figures, strict=True))


def test_a_map_at_the_thing_gets_good_figures_and_one_elsewhere_bad_ones():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:32, :32] = True
    right, wrong = np.full((2, SIDE, SIDE), 1e-3)
    right[:2, :2] = wrong[3, 3] = 1
    good, bad = measured(right, mask), measured(wrong, mask)
    assert good["points at it"] == 1 and bad["points at it"] == 0
    assert good["AP of its mask"] > 0.99 and bad["AP of its mask"] < 0.3
    assert good["weight in its box"] > 0.8 and bad["weight in its box"] < 0.1
    assert good["IoU over 0.5"] > 0.9 and bad["IoU over 0.5"] < 0.05


def test_average_precision_is_the_share_of_right_pixels_where_they_are_found():
    mask = np.array([[True, False], [True, False]])
    weights = np.array([[0.9, 0.8], [0.7, 0.1]], np.float32)
    assert heat_maps.average_precision(mask, weights) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_are_pictures_of_their_size(kind):
    random = np.random.default_rng(0)
    drawn = [make_background(random, SIZE, kind) for _ in range(8)]
    assert {(one.mode, one.size) for one in drawn} == {("RGB", (SIZE, SIZE))}
    assert len({one.tobytes() for one in drawn}) > 1


def test_things_do_not_lie_above_each_other():
    random, free = np.random.default_rng(0), np.ones((SIZE, SIZE), bool)
    while place := find_place(random, free):
        left, top, side = place
        assert free[top : top + side, left : left + side].all()
        free[top : top + side, left : left + side] = False
    assert not free.all()
