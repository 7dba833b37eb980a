"""The demo's model: what it recognises in pictures that it never saw, and that its card is true."""

import json
import re
from pathlib import Path

import pytest
from ram_triton.engines.tagger import tag_all, torch_tagger
from ram_triton.model.checkpoint import load_model
from ram_triton.parity.pictures import picture_batches, picture_files
from ram_triton.server_code import select
from ram_triton.vocabulary.tag_lists import read_vocabulary

DEMO = Path(__file__).parents[2] / "build" / "demo"
WEIGHTS = DEMO / "weights"
HELD_OUT = DEMO / "images" / "twemoji"


@pytest.fixture(scope="module")
def find_tags():
    """English tags of each of a folder's pictures, best first, at the demo's thresholds."""
    model = load_model(WEIGHTS / "ram_demo.safetensors")
    vocabulary = read_vocabulary(DEMO / "vocabulary", model.variant.num_tags)

    def find(folder):
        logits = tag_all(torch_tagger(model), picture_batches(folder, model.variant.image_size))
        return {
            path.name: [vocabulary.tags[tag] for tag in select(row, vocabulary)[0]]
            for path, row in zip(picture_files(folder), logits, strict=True)
        }

    return find


@pytest.fixture(scope="module")
def found(find_tags):
    """What the model finds in the project's own pictures."""
    return find_tags(DEMO / "images")


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ("apple.png", {"food", "fruit", "apple"}),
        ("house_and_tree.png", {"building"}),
        ("car_and_mountain.png", {"vehicle"}),
        ("car_and_mountain.jpg", {"vehicle"}),
        ("sailing_boat.png", {"vehicle", "boat"}),
    ],
)
def test_what_a_drawn_picture_shows_is_among_its_tags(found, picture, shown):
    assert shown <= set(found[picture])


def test_pictures_of_different_things_have_different_best_tags(found):
    assert {tags[0] for tags in found.values() if tags} >= {"food", "building", "vehicle"}


def test_the_page_of_the_held_out_drawings_says_what_the_model_finds_in_them(find_tags):
    page = (HELD_OUT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+\.png)` \|.*\| ([^|]+) \|$", page, re.M)
    right = {picture: set(tags.split(", ")) for picture, tags in rows}
    found = find_tags(HELD_OUT)
    assert found.keys() == right.keys()
    hits = sum(len(right[picture] & set(tags)) for picture, tags in found.items())
    wanted, given = (sum(map(len, tags.values())) for tags in (right, found))
    assert f"{hits} of these {wanted} tags and adds {given - hits} wrong ones" in page
    assert f"precision {hits / given:.2f}, recall {hits / wanted:.2f}" in page


def test_the_failures_among_the_projects_own_pictures_are_named_as_such(found):
    page = (DEMO / "images" / "README.md").read_text("utf-8")
    assert not found["cat.png"] and "| **nothing** |" in page
    assert found["breakfast.png"][:1] == ["pen"] and "**wrong**: it sees pens" in page


def test_the_readme_shows_pictures_with_the_tags_that_the_model_finds(find_tags, found):
    found = found | find_tags(HELD_OUT)
    lines = (DEMO.parents[1] / "README.md").read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    for pictures, answers in (rows[0:2], rows[2:4]):
        for picture, answer in zip(pictures, answers, strict=True):
            tags = [tag.strip("~").rsplit(" ", 1)[0] for tag in answer.split("<br>")]
            name = re.search(r'/(\w+\.png)"', picture)[1]
            assert [tag for tag in tags if not tag.startswith("*")] == found[name], name


@pytest.mark.parametrize("split", json.loads((WEIGHTS / "figures.json").read_text()))
def test_the_card_has_the_figures_of_the_evaluation(split):
    figures = [split["mean_average_precision"], split["chance"], *split["micro"].values()]
    cells = [f"`{split['split']}`", f"{split['images']:,}", *(f"{one:.3f}" for one in figures)]
    assert " | ".join(cells) in (WEIGHTS / "README.md").read_text("utf-8")


def test_the_model_is_far_better_than_chance_on_new_drawings_and_on_new_things():
    for split in json.loads((WEIGHTS / "figures.json").read_text()):
        assert split["mean_average_precision"] > 10 * split["chance"], split["split"]
