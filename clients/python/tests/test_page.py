"""The page, as Chromium shows it, before a real tritonserver with the demo's model."""

import base64
import json
import re
import signal
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from ram_client import RamClient
from ram_triton.commands.demo import install
from ram_triton.repository.layout import DEMO_IMAGES
from ram_triton.server import TritonServer

pytest.importorskip("playwright", reason="playwright is not installed")
from experiments.page import (
    CHOSEN,
    SECONDS,
    address,
    browser,
    find_chromium,
    new_window,
    open_page,
    served,
)

APPLE = DEMO_IMAGES / "apple.png"
REFUSED = "gradio.exceptions.InvalidPathError"  # of a file that nobody dropped
JSON = {"Content-Type": "application/json"}
PHONE = {"width": 390, "height": 844}
DROP = """([name, type, base64]) => {
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, {type}));
    const event = new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer});
    document.querySelector("#picture [aria-dropeffect]").dispatchEvent(event);
}"""
COPY = """async base64 => {
    const picture = await (await fetch("data:image/png;base64," + base64)).blob();
    await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
}"""


@pytest.fixture(scope="module")
def chromium():
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def running(chromium, tmp_path_factory):
    """A server of the demo's model, and before it the page: the two start at once.

    At its end the page is told to stop while a browser shows it.
    """
    repository, dropped = tmp_path_factory.mktemp("demo") / "models", tmp_path_factory.mktemp("tmp")
    install(repository)
    server = TritonServer(repository)
    examples = ("--examples", str(DEMO_IMAGES / "cat.png"), "--examples", str(APPLE))
    with served("--server", server.grpc, *examples, temporary=dropped) as process, server:
        url = address(process)
        yield server, url
        window = new_window(chromium, 400, 400)
        open_page(window, url)
        assert list(dropped.glob(f"**/{APPLE.name}"))
        window.wait_for_load_state("networkidle")
        process.send_signal(signal.SIGTERM)
        printed, log = process.communicate(timeout=SECONDS)
        assert (process.returncode, printed) == (0, "")
        assert set(re.findall(r"^\S*Error\b", log, re.M)) <= {REFUSED}, log
        assert not list(dropped.iterdir())
        window.close()


@pytest.fixture(scope="module")
def url(running):
    return running[1]


@pytest.fixture(scope="module")
def client(running):
    with RamClient(running[0].grpc) as client:
        yield client


@pytest.fixture
def page(chromium, url):
    """The page in a window of its own, which may ask no other host for anything."""
    window = new_window(chromium, 1200, 900)
    asked, problems = [], []
    window.on("request", lambda request: asked.append(request.url))
    window.on("pageerror", lambda problem: problems.append(problem))
    open_page(window, url)
    yield window
    window.close()
    assert all(address.startswith((url, "data:", "blob:")) for address in asked), asked
    assert not problems


def encoded(content):
    return base64.b64encode(content).decode()


def chips(page):
    """What is on the page: names, Chinese names and scores."""
    page.wait_for_selector(".ram-tags li")
    return [
        tuple(chip.query_selector(part).inner_text() for part in ("b", "span", "data"))
        for chip in page.query_selector_all(".ram-tags li")
    ]


def shown(tags):
    return [(tag.name, tag.name_zh, f"{tag.score:.3f}") for tag in tags]


def fill(page, setting, value):
    """Type a number beside a slider."""
    number = page.locator(f"{setting} input[type=number]")
    number.fill(str(value))
    number.blur()


def until_shown(page, tags):
    """Wait for these, in place of what is shown."""
    wanted = shown(tags)
    page.wait_for_function(
        """names => JSON.stringify(names) === JSON.stringify(
            [...document.querySelectorAll(".ram-tags li b")].map(name => name.innerText))""",
        arg=[name for name, _, _ in wanted],
    )
    assert chips(page) == wanted


def test_a_picture_is_tagged_in_both_languages_with_scores_and_times(page, client):
    page.set_input_files(CHOSEN, APPLE)
    found = chips(page)
    assert found == shown(client.tag(APPLE))
    assert ("apple", "苹果") in [names[:2] for names in found]
    read, *others = page.locator(".ram-times dt").all_inner_texts()
    assert read == f"read the file, {APPLE.stat().st_size:,} bytes"
    assert others == [
        *("a request without a picture", "send, decode, model, answer", "draw the heat maps")
    ]
    assert all(re.fullmatch(r"\d+\.\d ms", time) for time in page.locator("dd").all_inner_texts())


def test_pointing_at_a_tag_shows_where_it_is(page, client):
    page.set_input_files(CHOSEN, APPLE)
    page.wait_for_selector(".ram-tags li")
    assert page.locator(".ram-tags figure").count() == len(client.tag(APPLE))
    place = page.locator(".ram-tags li:has-text('apple') figure img")
    assert not place.is_visible()
    page.locator(".ram-tags li:has-text('apple') b").hover()
    assert place.is_visible() and place.get_attribute("alt") == "Where: apple"
    assert place.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 320]
    page.mouse.move(0, 0)
    assert not place.is_visible()


def test_pictures_come_by_drop_paste_camera_and_from_the_examples(page, client):
    names = [tag.name for tag in client.tag(APPLE)]
    picture = encoded(APPLE.read_bytes())
    page.evaluate(DROP, ["a.png", "image/png", picture])
    assert [name for name, _, _ in chips(page)] == names
    page.get_by_label("Remove Image").click()
    page.wait_for_selector("#tags .ram-hint")
    page.context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
    page.evaluate(COPY, picture)
    page.get_by_label("Paste from clipboard").click()
    assert [name for name, _, _ in chips(page)] == names
    page.get_by_label("Remove Image").click()
    page.wait_for_selector("#tags .ram-hint")
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    page.wait_for_selector(".ram-times")
    page.locator(".gallery-item").nth(1).click()
    until_shown(page, client.tag(APPLE))


def test_the_settings_apply_to_the_picture_that_is_there(page, client):
    page.set_input_files(CHOSEN, APPLE)
    assert len(chips(page)) > 2
    page.locator("#own input").uncheck()
    fill(page, "#threshold", 0.9)
    until_shown(page, client.tag(APPLE, threshold=0.9))
    fill(page, "#top-k", 1)
    until_shown(page, client.tag(APPLE, threshold=0.9, top_k=1))
    fill(page, "#threshold", 0)
    fill(page, "#top-k", 0)
    page.locator("#labels textarea").fill("violin\n\n 苹果 \n")
    page.get_by_role("button", name="Tag", exact=True).click()
    until_shown(page, client.tag(APPLE, threshold=0, labels=["violin", "苹果"]))


def test_what_cannot_be_tagged_is_an_error(page, tmp_path):
    text = encoded(b"no picture")
    page.evaluate(DROP, ["notes.txt", "text/plain", text])
    page.wait_for_selector('.toast-body.error:has-text("Invalid file type: notes.txt")')
    large = tmp_path / "large.png"
    large.write_bytes(APPLE.read_bytes() + bytes(30 * 2**20))
    page.set_input_files(CHOSEN, large)
    page.wait_for_selector('.toast-body.error:has-text("exceed the maximum allowed size of 20")')
    page.evaluate(DROP, ["notes.png", "image/png", text])
    page.wait_for_selector('#tags [role="alert"]:has-text("not an image of a known format")')
    page.set_input_files(CHOSEN, APPLE)
    assert chips(page) and not page.locator('#tags [role="alert"]').count()


def test_a_phone_need_not_be_scrolled_sideways(page):
    page.set_viewport_size(PHONE)
    page.set_input_files(CHOSEN, APPLE)
    page.wait_for_selector(".ram-tags")
    page.locator(".ram-tags li").last.click()
    assert page.locator(".ram-tags li:last-child img").is_visible()
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= PHONE["width"]
    page.locator("#labels textarea").fill("w" * 200)
    page.get_by_role("button", name="Tag", exact=True).click()
    assert "www" in page.locator('#tags [role="alert"]').inner_text()
    assert page.evaluate(width) <= PHONE["width"]
    box = page.locator(".ram-error").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def answer(url, *values):
    """What the page's own request is answered: whether it succeeded, and its output."""
    api, session = f"{url}/gradio_api/queue", {"session_hash": uuid4().hex}
    config = requests.get(f"{url}/config", timeout=SECONDS).json()
    (tag,) = (event for event in config["dependencies"] if len(event["inputs"]) == 5)
    data = {"data": values, "fn_index": tag["id"], **session}
    joined = requests.post(f"{api}/join", json.dumps(data), headers=JSON, timeout=SECONDS)
    assert joined.status_code == 200, joined.text
    with requests.get(f"{api}/data", params=session, stream=True, timeout=SECONDS) as response:
        lines = response.iter_lines()
        events = (json.loads(line.removeprefix(b"data: ")) for line in lines if line)
        end = next(event for event in events if event["msg"] == "process_completed")
    return end["success"], end["output"]


def dropped(url, content):
    """Drop a picture; returns what the page calls it."""
    files = {"files": ("apple.png", content)}
    sent = requests.post(f"{url}/gradio_api/upload", files=files, timeout=SECONDS)
    return {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def picture(url):
    return dropped(url, APPLE.read_bytes())


FIRST = (True, 0.5, 0, "")  # what is set on the page at first


@pytest.mark.parametrize("loaded", range(len(FIRST) + 1))
def test_a_picture_may_come_before_the_settings_are_loaded(url, client, picture, loaded):
    """A browser sends null for what it has not built yet, and for a number that was emptied."""
    is_done, output = answer(url, picture, *FIRST[:loaded], *[None] * (len(FIRST) - loaded))
    assert is_done, output
    for tag in client.tag(APPLE):
        assert f"<b>{tag.name}</b>" in output["data"][0]


@pytest.mark.parametrize(
    ("place", "settings", "told"),
    [
        ({}, FIRST, "path: "),
        ({"path": "a\0.png"}, FIRST, "path: "),
        (None, (7, 0.5, 0, ""), "own_thresholds: "),
        (None, (False, "high", 0, ""), "threshold: "),
        (None, (True, 0.5, [], ""), "top_k: "),
        (None, (True, 0.5, float("inf"), ""), "top_k: "),
        (None, (True, 0.5, 0, {}), "labels: "),
    ],
)
def test_what_is_not_a_request_of_the_page_is_an_error(url, picture, place, settings, told):
    is_done, output = answer(url, picture if place is None else place, *settings)
    assert not is_done and told in output["error"]


def test_a_picture_that_was_removed_is_to_be_dropped_again(url):
    picture = dropped(url, APPLE.read_bytes() + b"another")
    Path(picture["path"]).unlink()
    is_done, output = answer(url, picture, *FIRST)
    assert is_done and "drop it again" in output["data"][0]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"path": "http://127.0.0.1:9/a.png"}, "addresses are not fetched"),
        ({"path": "a.png", "url": "http://127.0.0.1:9/a.png"}, "was not uploaded"),
        ({"path": str(APPLE)}, "was not uploaded"),
    ],
)
@pytest.mark.parametrize("is_marked", [True, False])
def test_only_what_was_dropped_is_read(url, place, told, is_marked):
    """As a program might ask; what lacks the mark is not a file to Gradio."""
    if is_marked:
        place = place | {"meta": {"_type": "gradio.FileData"}}
    else:
        told = "is not a picture that was dropped"
    is_done, output = answer(url, place, *FIRST)
    assert not is_done and told in output["error"]


def test_what_the_page_does_not_need_is_closed(url):
    for path in (
        *("/gradio_api/info", "/gradio_api/openapi.json", "/monitoring", "/docs", "/openapi.json"),
        *("/gradio_api/proxy=http://127.0.0.1:9/", "/gradio_api/file=http://127.0.0.1:9/"),
    ):
        assert requests.get(url + path, timeout=SECONDS).status_code == 404, path
    answer = requests.get(f"{url}/gradio_api/file=/etc/passwd", timeout=SECONDS)
    assert answer.status_code == 403


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host"])
def test_a_proxy_may_give_it_another_name(url, header):
    """Where its scripts ask: elsewhere than at the page's own host browsers would not let them."""
    config = requests.get(f"{url}/config", headers={header: "ram.example"}, timeout=SECONDS).json()
    assert config["root"] == "http://ram.example"
