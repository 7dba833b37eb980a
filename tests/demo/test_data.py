"""The demo's data: its vocabulary and splits, on few made-up emoji and without a network."""

import json
from collections import Counter

import numpy as np
import pytest
from demo import packages, splits
from demo.emoji import Emoji, name_concept, read_emoji, to_hexcode
from demo.packages import DRAWINGS, Package, fetch_package
from demo.vocabulary import FOLDER, Tag, rank_chinese_name, read_tags
from ram_triton.errors import PackageError


def make_emoji(label, subgroup="animal-mammal", keywords_zh=()):
    return Emoji(label, label, name_concept(label), subgroup, (), tuple(keywords_zh))


def test_tag_lists_are_those_of_the_rules():
    tags = read_tags()
    lists = {
        file: (FOLDER / file).read_text("utf-8").split("\n")
        for file in ("ram_tag_list.txt", "ram_tag_list_chinese.txt")
    }
    assert lists["ram_tag_list.txt"] == [tag.name for tag in tags] + [""]
    assert lists["ram_tag_list_chinese.txt"] == [tag.name_zh for tag in tags] + [""]


def test_vocabulary_is_of_the_promised_size_and_well_formed():
    tags = read_tags()
    assert 200 <= len(tags) <= 320
    for tag in tags:
        assert tag.name == tag.name.strip().lower()
        assert tag.name.isascii()
        assert not tag.name_zh.isascii()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ('cat = { zh = "猫", word = ["cat"] }', "'cat' has unknown settings ['word']"),
        ('cat = { zh = "猫" }\nkitten = { zh = "猫" }', "two tags are named 猫"),
    ],
)
def test_wrong_rules_are_refused(tmp_path, rules, message):
    file = tmp_path / "rules.toml"
    file.write_text(rules, "utf-8")
    with pytest.raises(ValueError, match=r"rules\.toml") as error:
        read_tags(file)
    assert message in str(error.value)


def test_tag_describes_whole_words_of_a_label():
    tag = Tag("ant", "蚂蚁", words=("ant", "=bug"), not_words=("toy",))
    assert tag.describes(make_emoji("Ant"))
    assert tag.describes(make_emoji("bug"))
    assert not tag.describes(make_emoji("elephant"))
    assert not tag.describes(make_emoji("bug spray"))
    assert not tag.describes(make_emoji("toy ant"))


def test_chinese_name_is_ranked_by_the_emoji_it_shares():
    emoji = [
        make_emoji("cat", keywords_zh=["猫", "动物"]),
        make_emoji("black cat", keywords_zh=["猫", "动物"]),
        make_emoji("dog", keywords_zh=["狗", "动物"]),
    ]
    assert rank_chinese_name(Tag("cat", "猫", words=("cat",)), emoji) == (0, ["猫", "动物"])
    assert rank_chinese_name(Tag("cat", "狗", words=("cat",)), emoji)[0] is None


@pytest.mark.parametrize(
    "variants",
    [
        ("woman running", "man running: facing right", "person running"),
        ("red apple", "green apple"),
        ("twelve o’clock", "three-thirty"),
        ("kiss", "kiss: woman, man"),
        ("Santa Claus", "Mrs. Claus", "Mx Claus"),
        ("up-right arrow", "right arrow curving left", "BACK arrow"),
        ("man", "woman", "person"),
    ],
)
def test_variants_are_one_concept(variants):
    assert len({name_concept(label) for label in variants}) == 1


@pytest.mark.parametrize(
    "others",
    [
        ("bow and arrow", "right arrow"),
        ("bell pepper", "bell"),
        ("light bulb", "light rail"),
        ("moon cake", "full moon"),
    ],
)
def test_other_things_are_other_concepts(others):
    assert len({name_concept(label) for label in others}) == len(others)


def test_hexcode_is_spelled_one_way():
    assert to_hexcode("2764-FE0F-200D-1F525") == "2764-200d-1f525"


def test_emoji_are_read_without_letters_and_countries(tmp_path):
    def entry(hexcode, label, subgroup, order):
        return {
            "hexcode": hexcode,
            "label": label,
            "subgroup": subgroup,
            "order": order,
            "version": 1,
        }

    english = [
        entry("1F408", "cat", 1, 2),
        entry("1F1E9", "flag: Germany", 2, 1),
        entry("1F415", "dog", 1, 0),
        {"hexcode": "1F1E6", "label": "regional indicator A", "version": 0},
    ]
    chinese = [{**one, "label": "猫", "tags": ["动物"]} for one in english]
    for name, content in {
        "meta/groups.json": {"subgroups": {"1": "animal-mammal", "2": "country-flag"}},
        "en/data.json": english,
        "zh/data.json": chinese,
    }.items():
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(json.dumps(content), "utf-8")
    found = read_emoji(tmp_path)
    assert [one.label for one in found] == ["dog", "cat"]
    assert found[0].keywords_zh == ("猫", "动物")


@pytest.fixture
def concepts():
    tags = {f"animal {number}": {"animal"} for number in range(40)}
    tags |= {f"bird {number}": {"animal", "bird"} for number in range(8)}
    return tags | {"zebra": {"animal", "zebra"}, "brick": set(), "bird": {"animal", "bird"}}


def test_held_out_concepts_leave_each_tag_enough(concepts):
    held_out = splits.hold_out_concepts(concepts, share=0.5, largest_loss=0.25)
    assert held_out
    lost = Counter(name for concept in held_out for name in concepts[concept])
    total = Counter(name for names in concepts.values() for name in names)
    assert all(lost[name] <= 0.25 * total[name] for name in total)
    assert not held_out & {"zebra", "brick", "bird"}


def test_held_out_concepts_do_not_depend_on_order(concepts):
    turned = dict(reversed(concepts.items()))
    assert splits.hold_out_concepts(concepts) == splits.hold_out_concepts(turned)


def test_no_concept_and_no_vendor_is_on_both_sides():
    placed = {
        (package.vendor, unseen): splits.choose_split(package.vendor, unseen)
        for package in DRAWINGS
        for unseen in (False, True)
    }
    assert {split for (_, unseen), split in placed.items() if unseen} == {"test_unseen", None}
    for split, vendors in (("test_seen", {"twemoji"}), ("validation", {"emojione-v1"})):
        assert {vendor for (vendor, _), found in placed.items() if found == split} == vendors


def test_near_equal_drawings_of_a_concept_are_copies():
    disc = np.zeros((32, 32, 4), np.uint8)
    disc[4:28, 4:28] = (200, 30, 30, 255)
    moved = np.roll(disc, 3, axis=1)
    other = disc.copy()
    other[4:28, 4:16, :3] = 0
    thumbnails = np.stack([splits.shrink(pixels) for pixels in (disc, moved, other, moved)])
    vendors = ["twemoji", "noto", "noto", "noto"]
    concepts = ["disc", "disc", "disc", "plate"]
    assert splits.find_copies(thumbnails, vendors, concepts, 0.03) == {1}


def test_thumbnail_of_nothing_is_white():
    assert (splits.shrink(np.zeros((8, 8, 4), np.uint8)) == 1).all()


def test_missing_npm_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(PackageError, match="npm is missing: install it"):
        fetch_package(Package("emoji", "1.0.0", "MIT", "Someone"), tmp_path)


def test_cached_package_needs_no_npm(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    package = Package("@icons/emoji", "1.0.0", "MIT", "Someone")
    (tmp_path / "icons-emoji-1.0.0").mkdir()
    assert fetch_package(package, tmp_path) == tmp_path / "icons-emoji-1.0.0"
