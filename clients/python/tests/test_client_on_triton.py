"""The client and the command line against a real tritonserver with a tiny RAM."""

import asyncio
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from ram_client import (
    AsyncRamClient,
    ImageUnreadable,
    InvalidRequest,
    ModelNotFound,
    RamClient,
    Tag,
)

README = Path(__file__).parents[1] / "README.md"
PROJECT = README.parents[2]
ALL = 0.0  # every tag's score exceeds it
TOO_MANY = 1000


@pytest.fixture(scope="session")
def client(server):
    with RamClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="session")
def all_tags(client, photos):
    """All tags of the first photo, best first."""
    return client.tag(photos[0], threshold=ALL)


def test_tags_are_complete_and_sorted(all_tags):
    assert all(isinstance(tag, Tag) and tag.name and tag.name_zh for tag in all_tags)
    assert sorted(tag.id for tag in all_tags) == list(range(len(all_tags)))
    scores = [tag.score for tag in all_tags]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)


def test_the_threshold_is_exceeded(client, photos, all_tags):
    limit = all_tags[4].score
    assert client.tag(photos[0], threshold=limit) == [tag for tag in all_tags if tag.score > limit]


def test_an_image_without_tags(client, photos):
    assert client.tag(photos[0], threshold=1) == []
    assert client.tag_batch(photos[:2], threshold=1) == [[], []]


def test_top_k(client, photos, all_tags):
    assert client.tag(photos[0], threshold=ALL, top_k=3) == all_tags[:3]
    assert client.tag(photos[0], threshold=ALL, top_k=0) == all_tags


def test_exclude_in_both_languages(client, photos, all_tags):
    first, second = all_tags[:2]
    left = client.tag(photos[0], threshold=ALL, exclude=[first.name, second.name_zh])
    assert left == [
        tag for tag in all_tags if tag.name != first.name and tag.name_zh != second.name_zh
    ]


def test_a_batch_is_answered_as_its_images_one_by_one(client, photos):
    together = client.tag_batch(photos)
    for tags, photo in zip(together, photos, strict=True):
        alone = client.tag(photo)
        assert {tag.id for tag in tags} == {tag.id for tag in alone}
        scores = {tag.id: tag.score for tag in alone}
        assert all(tag.score == pytest.approx(scores[tag.id], abs=1e-5) for tag in tags)


def test_a_picture_and_its_file_have_the_same_tags(client, photos, tmp_path, all_tags):
    path = tmp_path / "photo.png"
    path.write_bytes(photos[0])
    assert client.tag(path, threshold=ALL) == all_tags
    assert client.tag(str(path), threshold=ALL) == all_tags
    with PIL.Image.open(path) as picture:
        assert client.tag(picture, threshold=ALL) == all_tags


def test_labels(client, photos, all_tags):
    names = [tag.name for tag in all_tags[3:6]]
    tags = client.tag(photos[0], labels=names, threshold=ALL)
    assert [(tag.name, tag.id, tag.known) for tag in tags] == [
        (name, place, True) for place, name in enumerate(names)
    ]
    assert [tag.score for tag in tags] == pytest.approx([t.score for t in all_tags[3:6]], abs=1e-5)
    with pytest.raises(InvalidRequest, match=r"^labels: the vocabulary does not contain 'dragon'"):
        client.tag(photos[0], labels=["dragon"])
    with pytest.raises(InvalidRequest, match=r"^labels: empty"):
        client.tag(photos[0], labels=[])


def test_embeddings(client, photos):
    embeddings = client.embed_batch(photos)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(photos), client.embed(photos[0]).size)
    assert np.isfinite(embeddings).all()
    assert np.allclose(embeddings[1], client.embed(photos[1]), atol=1e-5)
    assert not np.allclose(embeddings[0], embeddings[1], atol=1e-3)


@pytest.mark.parametrize("kind", [np.asarray, lambda picture: picture], ids=["array", "Pillow"])
def test_pixels_have_the_tags_of_their_file(client, pictures, photos, all_tags, kind):
    assert client.tag(kind(pictures[0]), threshold=ALL) == all_tags
    assert (
        client.tag(kind(pictures[0]), threshold=ALL, top_k=3, exclude=[all_tags[0].name])
        == (all_tags[1:4])
    )
    assert np.array_equal(client.embed(kind(pictures[0])), client.embed(photos[0]))
    labels = [tag.name for tag in all_tags[:3]]
    tags = client.tag(kind(pictures[0]), labels=labels, threshold=ALL)
    assert tags == client.tag(photos[0], labels=labels, threshold=ALL)


def test_blue_green_red(client, pictures, all_tags):
    bgr = np.asarray(pictures[0])[..., ::-1]
    assert client.tag(bgr, bgr=True, threshold=ALL) == all_tags
    assert client.tag(bgr, threshold=ALL) != all_tags
    assert np.array_equal(client.embed(bgr, bgr=True), client.embed(pictures[0]))


def test_a_batch_of_arrays_and_of_all_kinds(client, pictures, photos):
    expected = [{tag.id for tag in tags} for tags in client.tag_batch(photos)]
    arrays = [np.asarray(picture) for picture in pictures]
    for images in (arrays, [arrays[0], photos[1], pictures[2]]):
        assert [{tag.id for tag in tags} for tags in client.tag_batch(images)] == expected
    batch = np.stack([arrays[0], arrays[0]])
    first, second = client.tag_batch(batch)
    assert first == second == client.tag_batch([photos[0]] * 2)[0]
    with pytest.raises(ImageUnreadable, match=r"^image\[1\]: .*channels first"):
        client.tag_batch([arrays[0], np.moveaxis(arrays[0], -1, 0)])


@pytest.mark.parametrize("batch", [1, 3])
async def test_frames_are_tagged_in_order(server, client, pictures, batch):
    frames = [np.asarray(picture) for picture in pictures] * 4
    expected = [{tag.id for tag in client.tag(frame)} for frame in frames]
    tagged = client.tag_frames(iter(frames), concurrency=3, batch=batch)
    assert [{tag.id for tag in tags} for tags in tagged] == expected
    bgr = [frame[..., ::-1] for frame in frames]
    async with AsyncRamClient(server.grpc) as other:
        tagged = other.tag_frames(bgr, concurrency=3, batch=batch, bgr=True)
        assert [{tag.id for tag in tags} async for tags in tagged] == expected


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "bad", [np.zeros((3, 64, 64), np.uint8), b"no image"], ids=["here", "there"]
)
async def test_a_bad_frame_is_told_after_the_tags_of_those_before(
    server, client, pictures, batch, bad
):
    frames = [np.asarray(pictures[index % 3]) for index in range(9)]
    frames[4] = bad
    found = []
    with pytest.raises((ImageUnreadable, InvalidRequest), match=r"^image: "):
        for tags in client.tag_frames(frames, concurrency=2, batch=batch):
            found.append(tags)
    assert len(found) == 4
    async with AsyncRamClient(server.grpc) as other:
        found = []
        with pytest.raises((ImageUnreadable, InvalidRequest), match=r"^image: "):
            async for tags in other.tag_frames(frames, concurrency=2, batch=batch):
                found.append(tags)
        assert len(found) == 4


async def test_the_async_client_gives_the_same(server, client, photos):
    async with AsyncRamClient(server.grpc) as other:
        assert await other.is_ready()
        results = await asyncio.gather(*(other.tag(photo, threshold=ALL) for photo in photos))
        embedding = await other.embed(photos[0])
    for tags, photo in zip(results, photos, strict=True):
        scores = {tag.id: tag.score for tag in client.tag(photo, threshold=ALL)}
        assert {tag.id: pytest.approx(tag.score, abs=1e-5) for tag in tags} == scores
    assert np.allclose(embedding, client.embed(photos[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": b""}, r"^image: \S"),
        ({"image": b"no image"}, r"^image: \S"),
        ({"threshold": 1.5}, r"^threshold: \S"),
        ({"threshold": float("nan")}, r"^threshold: \S"),
        ({"top_k": -1}, r"^top_k: \S"),
        ({"exclude": ["no such tag"]}, r"^exclude: .*no such tag"),
    ],
)
def test_the_server_says_what_is_wrong(client, photos, arguments, message):
    with pytest.raises(InvalidRequest, match=message) as raised:
        client.tag(**({"image": photos[0]} | arguments))
    assert len(str(raised.value).splitlines()) == 1


def test_a_bad_image_of_a_batch_is_named(client, photos):
    with pytest.raises(InvalidRequest, match=r"^image\[1\]: "):
        client.tag_batch([photos[0], b"no image"])


def test_an_embedding_of_nothing_is_refused(client):
    with pytest.raises(InvalidRequest):
        client.embed_batch([])


def test_more_images_than_the_largest_batch(client, photos):
    with pytest.raises(InvalidRequest, match="batch"):
        client.tag_batch(photos[:1] * TOO_MANY)


def test_another_model(server, photos):
    with RamClient(server.grpc, model="other") as other:
        assert not other.is_ready()
        with pytest.raises(ModelNotFound, match="other"):
            other.tag(photos[0])


@pytest.fixture
def ram_tag_here(ram_tag, server):
    return lambda *arguments: ram_tag(*arguments, "--server", server.grpc)


def failed_files(done):
    assert all(line.startswith("ram-tag: ") for line in done.stderr.splitlines())
    return [line.split(": ")[1] for line in done.stderr.splitlines()]


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_a_folder_with_a_broken_file(ram_tag_here, client, album, form):
    done = ram_tag_here(album, form, "--threshold", ALL, "--top-k", 2)
    assert done.returncode == 1
    assert failed_files(done) == [str(album / "b.jpg")]
    lines = done.stdout.splitlines()
    results = json.loads(done.stdout) if form == "--json" else [json.loads(x) for x in lines]
    assert [result["file"] for result in results] == [str(album / "a.png"), str(album / "c.JPG")]
    for result in results:
        expected = client.tag(result["file"], threshold=ALL, top_k=2)
        assert [
            (tag["id"], tag["name"], tag["name_zh"], pytest.approx(tag["score"], abs=1e-5))
            for tag in result["tags"]
        ] == [(tag.id, tag.name, tag.name_zh, tag.score) for tag in expected]


def test_recursive(ram_tag_here, album):
    (album / "b.jpg").unlink()
    done = ram_tag_here(album, "--recursive", "--jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    names = [
        json.loads(line)["file"].removeprefix(f"{album}/") for line in done.stdout.splitlines()
    ]
    assert names == ["a.png", "c.JPG", "more/d.bmp"]


def test_named_files_are_sent_whatever_their_suffix(ram_tag_here, album):
    done = ram_tag_here(album / "notes.txt", album / "a.png", "--jsonl")
    assert done.returncode == 1
    assert failed_files(done) == [str(album / "notes.txt")]
    assert len(done.stdout.splitlines()) == 1


def test_labels_are_read_from_a_file(ram_tag_here, album, tmp_path):
    (tmp_path / "mine.txt").write_text("tag 3\n\n tag 5\ntag 8\n", encoding="utf-8-sig")
    done = ram_tag_here(album / "a.png", "--labels", "mine.txt", "--threshold", "0", "--jsonl")
    tags = json.loads(done.stdout)["tags"]
    assert {tag["name"]: tag["id"] for tag in tags} == {"tag 3": 0, "tag 5": 1, "tag 8": 2}


def test_a_label_that_is_not_known_gets_one_line_for_all_files(ram_tag_here, album, tmp_path):
    (tmp_path / "mine.txt").write_text("tag 3\ndragon\n")
    done = ram_tag_here(album, "--labels", "mine.txt")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "does not contain 'dragon'" in done.stderr


def test_the_table_shows_both_languages(ram_tag_here, album, client):
    done = ram_tag_here(album / "a.png", "--threshold", ALL, "--top-k", 1)
    (tag,) = client.tag(album / "a.png", threshold=ALL, top_k=1)
    title, row = (line for line in done.stdout.splitlines() if line.strip())
    assert title == str(album / "a.png")
    assert row.split() == [f"{tag.score:.3f}", *tag.name.split(), *tag.name_zh.split()]


def test_an_unknown_tag_gets_one_line_for_all_files(ram_tag_here, album):
    (album / "b.jpg").unlink()
    done = ram_tag_here(album, "--exclude", "no such tag", "--json")
    assert done.returncode == 1
    assert failed_files(done) == ["exclude"]
    assert json.loads(done.stdout) == []


def test_many_files_keep_their_order(ram_tag_here, album, client):
    names = ["a.png", "c.JPG"] * 30
    done = ram_tag_here(*(album / name for name in names), "--jsonl", "--concurrency", 16)
    assert done.returncode == 0
    files = [json.loads(line)["file"] for line in done.stdout.splitlines()]
    assert files == [str(album / name) for name in names]


def test_the_readmes_python(server, monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for block in blocks:
        exec(block.replace("localhost:8001", server.grpc), {"__name__": "readme"})
    assert len(blocks) == 3
    assert "标签" in capsys.readouterr().out


def test_the_readmes_commands(ram_tag_here, tmp_path):
    shutil.copytree(PROJECT / "build/demo/images", tmp_path / "build/demo/images")
    commands = re.findall(r"^ram-tag .*", README.read_text(), re.MULTILINE)
    assert len(commands) == 9
    (tmp_path / "mine.txt").write_text("tag 1\ntag 2\n")
    for command in commands:
        # The README's tags are the demo's, the tiny model has others.
        command = command.replace("vegetable", "'tag 1'").replace("水果", "标签2")
        done = ram_tag_here(*shlex.split(command, comments=True)[1:])
        assert done.returncode == 0
        assert bool(done.stdout) != bool(done.stderr)  # tags, or the summary of files with tags
