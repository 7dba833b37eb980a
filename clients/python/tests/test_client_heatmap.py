"""Heat maps in the client: asked for, read, boxed and drawn; on a real server the model's own."""

import asyncio
import json
import shutil

import numpy as np
import PIL.Image
import pytest
from ram_client import AsyncRamClient, InvalidRequest, RamClient, Tag
from ram_client.sinks.overlays import draw, read
from ram_client.sinks.sink import WriteFailed
from ram_client.tag import box_of, enlarge, overlay

SIDE = 3  # of the tiny model


def spot(row, column, side=4):
    heatmap = np.full((side, side), 0.01, np.float32)
    heatmap[row, column] = 1
    return heatmap / heatmap.sum()


@pytest.fixture(scope="module")
def client(server):
    with RamClient(server.grpc) as connected:
        yield connected


def test_tags_are_equal_whatever_their_maps():
    assert Tag("cat", "猫", 0.5, 1, heatmap=spot(0, 0)) == Tag("cat", "猫", 0.5, 1)
    assert len({Tag("cat", "猫", 0.5, 1, heatmap=spot(0, 0)), Tag("cat", "猫", 0.5, 1)}) == 1
    assert "heatmap" not in repr(Tag("cat", "猫", 0.5, 1, heatmap=spot(0, 0)))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (3, 3)])
def test_a_box_is_around_the_part_over_half_of_the_largest_weight(row, column):
    left, top, right, bottom = box_of(spot(row, column))
    assert left <= (column + 0.5) / 4 <= right and top <= (row + 0.5) / 4 <= bottom
    for edge, place in ((left, column), (top, row)):
        assert edge == pytest.approx(place / 4, abs=0.04)
    for edge, place in ((right, column), (bottom, row)):
        assert edge == pytest.approx((place + 1) / 4, abs=0.04)


def test_boxes_stay_in_the_picture_and_contain_all_parts():
    assert box_of(np.ones((4, 4), np.float32)) == (0, 0, 1, 1)
    assert box_of(np.zeros((4, 4), np.float32)) == (0, 0, 1, 1)
    left, top, right, bottom = box_of(spot(0, 0) + spot(3, 3))
    assert (left, top) == (0, 0) and (right, bottom) == (1, 1)


def test_a_map_is_enlarged_as_pillow_does_it():
    heatmap = np.random.default_rng(0).random((3, 5), np.float32)
    fine = PIL.Image.fromarray(heatmap).resize((40, 24), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_allclose(enlarge(heatmap, 40, 24), np.asarray(fine), atol=1e-5)


def test_an_overlay_is_lightest_where_the_weight_is():
    drawn = np.asarray(overlay(PIL.Image.new("RGB", (80, 40), "white"), spot(1, 3))).astype(int)
    green = drawn[..., 1]
    assert drawn.shape == (40, 80, 3) and green.max() == green[15, 70] > 250 > 70 > green[35, 5]


def test_of_the_best_tags_there_is_a_tile_each():
    picture = PIL.Image.new("RGB", (120, 90), "blue")
    tags = [Tag(f"thing {n}", "", 0.5, n, heatmap=spot(n % 4, 0)) for n in range(9)]
    one, two, many = (draw(picture, tags[:count]).size for count in (1, 2, 9))
    assert one[0] * 2 == two[0] and one[0] * 3 == many[0] and one[1] * 2 == many[1]
    assert draw(picture, []).size == picture.size


def test_maps_of_a_server(client, photos):
    plain, tags = (client.tag(photos[0], threshold=0, where=where) for where in (False, True))
    assert tags == plain and all(tag.heatmap is None and tag.box is None for tag in plain)
    for tag in tags:
        assert tag.heatmap.shape == (SIDE, SIDE) and tag.heatmap.sum() == pytest.approx(1, abs=1e-4)
        left, top, right, bottom = tag.box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    assert client.tag(photos[0], threshold=1, where=True) == []
    first, second = client.tag_batch(photos[:2], threshold=0, where=True)
    assert first == tags
    np.testing.assert_allclose(first[0].heatmap, tags[0].heatmap, atol=1e-5)
    assert second[0].heatmap is not None


def test_maps_of_pixels_frames_and_labels(client, pictures, photos):
    (expected, *_) = client.tag(photos[0], threshold=0, where=True)
    (of_pixels, *_) = client.tag(pictures[0], threshold=0, where=True)
    ((of_frame, *_),) = client.tag_frames([np.asarray(pictures[0])], threshold=0, where=True)
    (of_labels,) = client.tag(photos[0], threshold=0, labels=[expected.name], where=True)
    for tag in (of_pixels, of_frame, of_labels):
        np.testing.assert_allclose(tag.heatmap, expected.heatmap, atol=1e-5)


def test_the_asynchronous_client_has_them_too(server, client, photos):
    async def ask():
        async with AsyncRamClient(server.grpc) as connected:
            return await connected.tag(photos[0], threshold=0, where=True)

    for tag, expected in zip(
        asyncio.run(ask()), client.tag(photos[0], threshold=0, where=True), strict=True
    ):
        np.testing.assert_allclose(tag.heatmap, expected.heatmap, atol=1e-5)


def test_a_server_without_maps_is_one_line(transport_server, photos):
    """As Triton refuses an output that a model does not have."""
    transport_server.refusal = "unexpected inference output 'maps' for model 'ram'"
    with (
        RamClient(transport_server.address) as client,
        pytest.raises(InvalidRequest, match=r"^where: the server has no heat maps: .*'make model'"),
    ):
        client.tag(photos[0], where=True)


def test_the_command_writes_a_picture_per_picture(server, ram_tag, album, tmp_path):
    (album / "b.jpg").unlink()
    at = "--quiet", "--server", server.grpc
    done = ram_tag("--recursive", "album", *at, "--where", "maps", "--jsonl", "--threshold", 0)
    assert (done.returncode, done.stderr) == (0, "")
    names = ["maps/album/a.png.jpg", "maps/album/c.JPG.jpg", "maps/album/more/d.bmp.jpg"]
    found = [path for path in sorted((tmp_path / "maps").rglob("*")) if path.is_file()]
    assert [str(path.relative_to(tmp_path)) for path in found] == names
    for path in found:
        with PIL.Image.open(path) as drawn:
            assert drawn.format == "JPEG" and drawn.width > drawn.height / 2
    (first, *_) = map(json.loads, done.stdout.splitlines())
    assert all(len(tag["box"]) == 4 for tag in first["tags"])
    again = ram_tag("--recursive", "album", *at, "--where", "maps", "--skip-existing", "--jsonl")
    assert (again.returncode, again.stdout) == (0, "")
    dry = ram_tag("album/a.png", *at, "--where", "other", "--dry-run")
    assert dry.stdout.startswith("other/album/a.png.jpg: ") and not (tmp_path / "other").exists()


def test_the_command_without_a_place_to_write_or_for_addresses(ram_tag, album, server, tmp_path):
    (tmp_path / "file").write_text("")
    done = ram_tag("album/a.png", "--quiet", "--server", server.grpc, "--where", "file")
    assert done.returncode == 1 and done.stderr == "ram-tag: file: File exists\n"
    done = ram_tag("https://example.org/a.png", "--urls", "--where", "maps")
    assert done.returncode == 2 and "--where cannot be combined with --urls" in done.stderr


def test_what_cannot_be_drawn_is_named(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(WriteFailed, match=r"broken\.png: cannot be drawn: "):
        read(broken)
    upright = tmp_path / "upright.png"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (40, 20), "red").save(upright, exif=exif)
    assert read(upright).size == (20, 40)
    shutil.rmtree(tmp_path)
