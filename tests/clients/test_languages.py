"""Each language's client answers the cases of clients/cases.json as the Python client does."""

import json
import re
from pathlib import Path

import pytest
from ram_client import RamClient

CLIENTS = Path(__file__).parents[2] / "clients"
PICTURES = CLIENTS.parent / "build" / "demo" / "images"
CASES = json.loads((CLIENTS / "cases.json").read_text())
ATTEMPTS = 5  # that a call has, the first and its retries


def arguments_of(case: dict) -> list[object]:
    """A case as words of the command line that all of these clients have."""
    words: list[object] = [f"--exclude={name}" for name in case.get("exclude", ())]
    words += [f"--label={name}" for name in case.get("labels", ())]
    words += [f"--threshold={case['threshold']}"] if "threshold" in case else []
    words += [f"--top-k={case['top_k']}"] if "top_k" in case else []
    return words + case["images"]


@pytest.fixture(scope="session")
def expected(server) -> dict[str, list[tuple[str, float, str, str]]]:
    """By the name of the case: file, score, English and Chinese name of each tag."""
    answers = {}
    with RamClient(server.grpc) as client:
        for case in CASES:
            if "error" not in case:
                options = {
                    key: case[key]
                    for key in ("threshold", "top_k", "exclude", "labels")
                    if key in case
                }
                rows = client.tag_batch([PICTURES / image for image in case["images"]], **options)
                answers[case["name"]] = [
                    (image, tag.score, tag.name, tag.name_zh)
                    for image, tags in zip(case["images"], rows, strict=True)
                    for tag in tags
                ]
    return answers


def lines(printed: str) -> list[tuple[str, float, str, str]]:
    rows = [line.split("\t") for line in printed.splitlines()]
    return [(file, pytest.approx(float(score), abs=1e-5), *names) for file, score, *names in rows]


def status_in(message: str) -> str:
    """The status that an error line names, in the spelling of the protocol."""
    (line,) = message.splitlines()
    name = re.fullmatch(r"tag: ([A-Za-z_]+): .+", line)[1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def test_the_cases_have_rows_to_pad(expected):
    def lengths(name):
        (case,) = (case for case in CASES if case["name"] == name)
        return [sum(line[0] == image for line in expected[name]) for image in case["images"]]

    assert len(set(lengths("a batch with rows of different lengths"))) > 1
    few, none, many = lengths("a threshold, and a row without tags")
    assert many > few > none == 0
    assert lengths("no tags at all") == [0, 0]


def test_answers(tag, address, expected):
    for case in CASES:
        done = tag("--server", address, *arguments_of(case))
        if "error" in case:
            assert (done.returncode, done.stdout) == (1, ""), case["name"]
            assert status_in(done.stderr) == case["error"], case["name"]
            assert case["message"] in done.stderr
        else:
            assert (done.returncode, done.stderr) == (0, ""), case["name"]
            assert lines(done.stdout) == expected[case["name"]], case["name"]


def test_images_are_sent_in_batches_and_a_bad_one_fails_its_own(tag, address, expected):
    images = ["apple.png", "README.md", "missing.png", "apple.png"]
    done = tag("--server", address, "--batch", 1, *images)
    assert done.returncode == 1
    assert lines(done.stdout) == 2 * expected["one image"]
    bad, missing = done.stderr.splitlines()
    assert status_in(bad) == "INVALID_ARGUMENT"
    assert missing.startswith("tag: ") and "missing.png" in missing


def test_wrong_options_get_one_line(tag):
    for wrong in (
        ["--top-k", "x", "apple.png"],
        ["--nonsense", "apple.png"],
        ["--header=x", "apple.png"],
        [],
    ):
        done = tag(*wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"tag: .+\n", done.stderr)


def test_a_call_is_tried_again_whatever_its_size(tag, transport_server, tmp_path):
    """gRPC's buffers of what may have to be sent again are 256 KiB or 1 MiB by default."""
    transport_server.failures = 2
    (tmp_path / "large.png").write_bytes(bytes(3_000_000))
    done = tag("--server", transport_server.address, tmp_path / "large.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert transport_server.calls == 3


def test_retries_have_a_budget(tag, transport_server):
    """Without one, a server that is too busy would get five times as many calls."""
    transport_server.failures = 1000
    done = tag("--server", transport_server.address, "--batch", 1, *["apple.png"] * 10)
    assert done.returncode == 1
    assert [status_in(line) for line in done.stderr.splitlines()] == ["UNAVAILABLE"] * 10
    assert 10 + ATTEMPTS - 1 <= transport_server.calls <= 20


def test_a_call_has_a_deadline(tag, transport_server):
    transport_server.hang()
    done = tag("--server", transport_server.address, "--timeout", 0.5, "apple.png")
    assert done.returncode == 1
    assert status_in(done.stderr) == "DEADLINE_EXCEEDED"


def test_headers_go_with_the_request(tag, transport_server):
    """What a gateway wants: a key."""
    headers = ("--header", "Authorization: Basic YTpi", "--header=x-name:value:1")
    done = tag("--server", transport_server.address, *headers, "apple.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert transport_server.headers["authorization"] == "Basic YTpi"
    assert transport_server.headers["x-name"] == "value:1"


def test_tls(tag, gateway, certificate, expected):
    done = tag("--server", gateway, "--tls-ca", certificate[0], "apple.png")
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == expected["one image"]
    untrusted = tag("--server", gateway, "--tls", "--timeout", 2, "apple.png")
    assert (untrusted.returncode, untrusted.stdout) == (1, "")
    assert status_in(untrusted.stderr) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
