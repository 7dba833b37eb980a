"""Drawings become a data set: three made-up packages, really rendered."""

import json

import numpy as np
import pytest

pytest.importorskip("resvg_py")

from demo import dataset
from demo.drawings import find_drawings, render_svg, to_pixels
from demo.emoji import Emoji
from demo.packages import DRAWINGS
from ram_triton.errors import FileError

SQUARE = '<path fill="#f00" d="M0 0H5V10H0Z"/>'
PACKAGES = {package.vendor: package for package in DRAWINGS}


def write_icons(folder, icons, characters, aliases=None):
    folder.mkdir(parents=True)
    bodies = {name: {"body": body} for name, body in icons.items()}
    (folder / "icons.json").write_text(
        json.dumps({"width": 10, "height": 10, "icons": bodies, "aliases": aliases or {}})
    )
    (folder / "chars.json").write_text(json.dumps(characters))
    return folder


def make_emoji(hexcode, label, version=1):
    return Emoji(hexcode, label, label, "animal-mammal", (), (), version)


def test_svg_is_centred_in_its_square():
    wide = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10">'
        '<path fill="#0f0" d="M0 0H20V10H0Z"/></svg>'
    )
    pixels = to_pixels(render_svg(wide, 16))
    assert pixels.shape == (16, 16, 4)
    assert (pixels[4:12] == (0, 255, 0, 255)).all()
    assert (pixels[:4] == 0).all()
    assert (pixels[12:] == 0).all()


def test_broken_svg_is_an_error():
    with pytest.raises(ValueError):
        render_svg("<svg", 16)


def test_mirrored_icon_is_mirrored(tmp_path):
    folder = write_icons(
        tmp_path / "noto",
        {"left": SQUARE},
        {"1": "left", "2": "right"},
        {"right": {"parent": "left", "hFlip": True}},
    )
    emoji = [make_emoji("1", "left"), make_emoji("2", "right")]
    left, right = find_drawings({PACKAGES["noto"]: folder}, emoji)
    assert (left.render(10)[:, ::-1] == right.render(10)).all()
    assert left.render(10)[0, 0].tolist() == [255, 0, 0, 255]


def test_icons_without_characters_are_joined_by_name(tmp_path):
    folders = {
        PACKAGES["noto"]: write_icons(
            tmp_path / "noto",
            {"bear": SQUARE, "bug": SQUARE, "ant": SQUARE},
            {"1": "bear", "2": "bug", "3": "ant"},
            {"old-bug": {"parent": "bug"}},
        ),
        PACKAGES["fxemoji"]: write_icons(
            tmp_path / "fxemoji", {"bearface": SQUARE, "oldbug": SQUARE, "ant": SQUARE}, {}
        ),
    }
    # The ant is newer than the package: its icon of that name must be something else.
    emoji = [make_emoji("1", "bear"), make_emoji("2", "bug"), make_emoji("3", "ant", version=9)]
    found = find_drawings(folders, emoji)
    joined = [one.emoji.label for one in found if one.vendor == "fxemoji"]
    assert joined == ["bear", "bug"]


def test_name_of_two_characters_is_left_out(tmp_path):
    folder = write_icons(
        tmp_path / "openmoji",
        {"bear": SQUARE, "bug": SQUARE},
        {"1": "bear", "2": "bug", "9": "bug"},
    )
    emoji = [make_emoji("1", "bear"), make_emoji("2", "bug")]
    found = find_drawings({PACKAGES["openmoji"]: folder}, emoji)
    assert [one.emoji.label for one in found] == ["bear"]


def test_interrupted_run_leaves_the_old_data_set(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "about.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), dataset._replacing(folder) as scratch:
        (scratch / "about.json").write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["data"]
    assert (folder / "about.json").read_text() == "old"


def test_finished_run_replaces_the_data_set(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "stale.txt").write_text("old")
    with dataset._replacing(folder) as scratch:
        (scratch / "about.json").write_text("new")
    assert [file.name for file in folder.iterdir()] == ["about.json"]


def test_missing_data_set_says_how_to_make_it(tmp_path):
    with pytest.raises(FileError, match=r"'make runs/demo/features.npy' makes it"):
        dataset.load_dataset(tmp_path)


def test_data_set_is_loaded_as_written(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((1, 4, 4, 4), np.uint8))
    line = dataset.Image(0, "train", "noto", "1f408", "cat", ["cat"], ["猫"], "cat")
    (tmp_path / "manifest.jsonl").write_text(json.dumps(vars(line)) + "\n", "utf-8")
    (tmp_path / "about.json").write_text("{}")
    images, manifest = dataset.load_dataset(tmp_path)
    assert images.shape == (1, 4, 4, 4)
    assert not images.flags.writeable
    assert manifest == [line]
