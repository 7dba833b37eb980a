"""The HTTP adaptor's formats, before a real tritonserver with a tiny RAM."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from ram_client import RamClient
from support import PATIENCE
from support.http_adaptor import Adaptor

RECORDED = Path(__file__).parent / "recorded"
PROJECT = Path(__file__).parents[3]
EXAMPLES = re.findall(r"```sh\n([^`]*curl[^`]*)```", (PROJECT / "docs" / "http.md").read_text())
LABELS, INTERROGATE, TAGS = "/api/v1/vision/labels", "/tagger/v1/interrogate", "/v1/tags"
ALL = 0.0  # every tag's score exceeds it
NOT_AN_IMAGE = "image: not an image of a known format"


@pytest.fixture(scope="module")
def adaptor(server):
    with Adaptor(server=server.grpc) as adaptor:
        yield adaptor


@pytest.fixture(scope="module")
def client(server):
    with RamClient(server.grpc) as client:
        yield client


@pytest.fixture
def photoprism():
    """A picture that is not square, as PhotoPrism sends it: left, right and centre."""
    return json.loads((RECORDED / "photoprism_labels.json").read_text())


@pytest.fixture
def wd14():
    return json.loads((RECORDED / "wd14_interrogate.json").read_text())


def text(photo):
    return base64.b64encode(photo).decode()


def fields(tag):
    names = ("name", "name_zh", "score", "id", "known")
    return {name: getattr(tag, name) for name in names}


def close(expected):
    """Scores of batches differ in their last digits."""
    return pytest.approx(expected, abs=1e-5)


def test_photoprism_gets_each_label_with_its_largest_score(adaptor, client, photoprism):
    answer = adaptor.post(LABELS, json=photoprism)
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"] == photoprism["id"] and body["code"] == 200
    assert body["model"]["type"] == "labels" and body["model"]["name"] == "ram"
    best = {}
    for tags in client.tag_batch([image.encode() for image in photoprism["images"]]):
        for tag in tags:
            best[tag.name] = max(tag.score, best.get(tag.name, 0))
    labels = body["result"]["labels"]
    confidences = [label["confidence"] for label in labels]
    assert len(labels) > 1 and confidences == sorted(confidences, reverse=True)
    assert {label["name"]: label["confidence"] for label in labels} == close(best)
    for label in labels:
        assert label["source"] == "image" and label["categories"] == []
        assert label["topicality"] == label["confidence"]


def test_photoprism_gets_labels_in_chinese_and_no_more_than_wanted(adaptor, photoprism):
    answer = adaptor.post(f"{LABELS}?language=zh&top_k=2&threshold={ALL}", json=photoprism)
    labels = answer.json()["result"]["labels"]
    assert len(labels) == 2 and all(label["name"].startswith("标签") for label in labels)


@pytest.mark.parametrize(
    ("change", "query", "status", "error"),
    [
        ({"images": ["data:image/jpeg;base64,eHl6"]}, "", 400, NOT_AN_IMAGE),
        ({"images": ["https://example.org/a.jpg"]}, "", 400, "addresses are not fetched"),
        ({"images": [], "url": "https://example.org/a.jpg"}, "", 400, "url: addresses are not"),
        ({"images": []}, "", 400, "images: is empty"),
        ({"images": "x"}, "", 400, "images: "),
        ({}, "?threshold=1", 404, "no result"),
        ({}, "?threshold=2", 400, "threshold: 2 is not between 0 and 1"),
        ({}, "?language=fr", 400, "language: "),
    ],
)
def test_photoprism_gets_an_error_as_code_and_error(
    adaptor, photoprism, change, query, status, error
):
    answer = adaptor.post(LABELS + query, json=photoprism | change)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, status)
    assert error in body["error"] and "\n" not in body["error"]
    assert body["result"] == {}


def test_wd14_gets_scores_by_tag(adaptor, client, wd14):
    wd14["threshold"] = 0.0005
    tags = client.tag(wd14["image"].encode(), threshold=0.0005)
    answer = adaptor.post(INTERROGATE, json=wd14)
    assert answer.json() == {"caption": {tag.name: close(tag.score) for tag in tags}}
    assert list(answer.json()["caption"]) == [tag.name for tag in tags] != []


def test_wd14s_newer_callers_get_them_under_tag(adaptor, wd14):
    flat = adaptor.post(INTERROGATE, json=wd14 | {"threshold": ALL}).json()["caption"]
    newer = wd14 | {"threshold": ALL, "queue": "", "name_in_queue": ""}
    assert adaptor.post(INTERROGATE, json=newer).json() == {
        "caption": {"tag": close(flat), "rating": {}}
    }


def test_wd14_without_tags_and_threshold(adaptor, client, wd14):
    assert adaptor.post(INTERROGATE, json=wd14 | {"threshold": 1}).json() == {"caption": {}}
    del wd14["threshold"]
    answer = adaptor.post(INTERROGATE, json=wd14)
    assert set(answer.json()["caption"]) == {tag.name for tag in client.tag(wd14["image"].encode())}


def test_two_tags_with_one_name_are_the_better_one(adaptor, client, wd14):
    """Tags 3 and 7 of the tiny vocabulary share a Chinese name."""
    answer = adaptor.post(f"{INTERROGATE}?language=zh", json=wd14 | {"threshold": ALL})
    tags = client.tag(wd14["image"].encode(), threshold=ALL)
    best = max(tag.score for tag in tags if tag.id in (3, 7))
    assert answer.json()["caption"]["标签3"] == close(best)
    assert len(answer.json()["caption"]) == len(tags) - 1


def test_wd14s_other_routes(adaptor):
    assert adaptor.get("/tagger/v1/interrogators").json() == {"models": ["ram"]}
    assert "0 model" in adaptor.post("/tagger/v1/unload-interrogators").json()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image": "eHl6"}, NOT_AN_IMAGE),
        ({"image": None}, "image: "),
        ({"threshold": -1}, "threshold: -1 is not between 0 and 1"),
        ({"queue": "a"}, "queue: there are no queues"),
    ],
)
def test_wd14_gets_an_error_as_detail(adaptor, wd14, change, error):
    answer = adaptor.post(INTERROGATE, json=wd14 | change)
    assert answer.status_code == 400 and list(answer.json()) == ["detail"]
    assert error in answer.json()["detail"]


def test_an_image_as_json(adaptor, client, photos):
    tags = client.tag(photos[0], threshold=ALL, top_k=3, exclude=["tag 1"])
    assert len(tags) == 3
    for image in (text(photos[0]), f"data:image/png;base64,{text(photos[0])}"):
        request = {"image": image, "threshold": ALL, "top_k": 3, "exclude": "tag 1"}
        answer = adaptor.post(TAGS, json=request)
        assert answer.json() == {"images": [{"file": None, "tags": [fields(tag) for tag in tags]}]}


def test_images_and_labels_as_json(adaptor, photos):
    labels = ["tag 5", "标签2"]
    request = {"images": [text(photo) for photo in photos], "labels": labels, "threshold": ALL}
    images = adaptor.post(TAGS, json=request).json()["images"]
    assert len(images) == len(photos)
    for image in images:
        assert {(tag["name"], tag["id"]) for tag in image["tags"]} == {("tag 5", 0), ("tag 2", 1)}


def test_files_of_a_form_are_answered_as_json_is(adaptor, photos):
    names = ["a.png", "名.jpg", "c.bmp"]
    parts = [("image", (name, photo)) for name, photo in zip(names, photos, strict=True)]
    options = {"threshold": "0", "top_k": "4", "exclude": ["tag 1", "tag 2"]}
    form = adaptor.post(TAGS, files=parts, data=options).json()["images"]
    request = {"images": [text(photo) for photo in photos]} | options
    assert [image["file"] for image in form] == names
    assert all(len(image["tags"]) == 4 for image in form)
    for image, same in zip(form, adaptor.post(TAGS, json=request).json()["images"], strict=True):
        assert [tag["name"] for tag in image["tags"]] == [tag["name"] for tag in same["tags"]]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"{}", "image: is missing"),
        (b'{"image": "eHl6"}', NOT_AN_IMAGE),
        (b'{"image": "eHl6", "treshold": 1}', "treshold: unknown field"),
        (b'{"image": "eHl6", "top_k": 1.5}', "top_k: "),
        (b'{"image": "eHl6", "top_k": 9999999999}', "top_k: 9999999999 does not fit"),
        (b'{"image": "eHl6", "exclude": [1]}', "exclude.0: "),
        (b'{"images": [%s]}' % b", ".join([b'"x"'] * 33), "images: "),
    ],
)
def test_a_mistake_in_json_is_one_line(adaptor, body, error):
    answer = adaptor.post(TAGS, data=body)
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    assert error in answer.json()["error"] and len(answer.json()["error"]) < 310


@pytest.mark.parametrize(
    ("files", "options", "error"),
    [
        ([("image", ("a.txt", b"text"))], {}, NOT_AN_IMAGE),
        ([("image", ("a.png", b""))], {}, "image: empty"),
        ([("image", ("a.txt", b"text"))] * 33, {}, "33"),
        ([("image", ("a.txt", b"text"))], {"treshold": "1"}, "treshold: unknown field"),
        ([("image", ("a.txt", b"text"))], {"threshold": "x"}, "threshold: "),
    ],
)
def test_a_mistake_in_a_form_is_one_line(adaptor, files, options, error):
    answer = adaptor.post(TAGS, files=files, data=options)
    assert answer.status_code == 400
    assert error in answer.json()["error"] or "Too many files" in answer.json()["error"]


def test_a_form_that_is_none(adaptor):
    headers = {"Content-Type": "multipart/form-data"}
    answer = adaptor.post(TAGS, data=b"no boundary", headers=headers)
    assert answer.status_code == 400 and "boundary" in answer.json()["error"]


def test_a_bad_image_among_others_is_named(adaptor, photos):
    answer = adaptor.post(TAGS, json={"images": [text(photos[0]), "eHl6"]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("image[1]: not an image")


def test_what_does_not_exist(adaptor):
    answer = adaptor.post("/v1/tag")
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "/v1/tag does not exist: /docs lists what does",
    )
    assert adaptor.get(TAGS).status_code == 405


def test_health_is_whether_triton_tags(adaptor):
    answer = adaptor.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


def test_the_description_is_valid_openapi_and_has_each_route(adaptor):
    document = adaptor.get("/openapi.json").json()
    validate(document)
    assert {LABELS, INTERROGATE, TAGS, "/health"} <= set(document["paths"])
    content = document["paths"][TAGS]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}


def test_the_page_of_the_api_loads_nothing_from_elsewhere(adaptor):
    page = adaptor.get("/docs").text
    assert "swagger" in page and "https://" not in page
    script = adaptor.get("/static-offline-docs/swagger-ui-bundle.js")
    assert script.status_code == 200 and len(script.content) > 100_000


@pytest.mark.parametrize("example", EXAMPLES, ids=["form", "json"])
def test_the_examples_of_the_page_are_answered(adaptor, example):
    if missing := [tool for tool in ("curl", "base64") if shutil.which(tool) is None]:
        pytest.skip(f"not installed here: {', '.join(missing)}")
    command = example.replace("localhost:8080", adaptor.url).replace("vegetable", "tag 1")
    command = ["bash", "-c", command]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=PROJECT, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert re.fullmatch(r"tag \d+", image["tags"][0]["name"])
