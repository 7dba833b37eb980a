"""The served ensemble: what a request may ask, what it is answered, what it is refused."""

import base64
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from ram_triton.engines.tagger import torch_tagger
from ram_triton.server_code import TagOptions, preprocess, select, sigmoid
from support import PATIENCE
from support.requests_to_ram import ask, infer_inputs, runs, statistics, tags_of
from tritonclient.utils import InferenceServerException

MAX_BATCH = 32


@pytest.fixture
def expected_logits(model):
    """What PyTorch computes for encoded images, as the server's preprocessor decodes them."""

    def logits(images):
        size = model.variant.image_size
        return torch_tagger(model)(np.stack([preprocess(image, size) for image in images]))

    return logits


def refusal(client, images, **options):
    with pytest.raises(InferenceServerException) as refused:
        ask(client, images, **options)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    message = refused.value.message().removeprefix("in ensemble 'ram', ")
    assert "\n" not in message and "Traceback" not in message
    return message


def test_tags_are_those_of_pytorch_above_their_own_thresholds(
    client, pictures, vocabulary, expected_logits
):
    for picture in pictures:
        (logits,) = expected_logits([picture])
        answered = tags_of(ask(client, [picture]))
        ids, scores = select(logits, vocabulary)
        assert 0 < len(ids) < 39, "a picture with all or none of the tags shows nothing"
        assert [tag[3] for tag in answered] == ids.tolist()
        np.testing.assert_allclose([tag[2] for tag in answered], scores, atol=1e-4)
        assert [tag[:2] for tag in answered] == [
            (vocabulary.tags[id], vocabulary.tags_zh[id]) for id in ids
        ]


def test_logits_and_embedding_come_on_request(client, pictures, model, expected_logits):
    outputs = ask(client, pictures[:3], outputs=("logits", "embedding", "count"))
    np.testing.assert_allclose(outputs["logits"], expected_logits(pictures[:3]), atol=1e-4)
    assert outputs["embedding"].shape == (3, model.variant.image_width)
    alone = ask(client, pictures[1:2], outputs=("embedding",))["embedding"]
    np.testing.assert_allclose(alone[0], outputs["embedding"][1], atol=1e-5)


@pytest.mark.parametrize("outputs", [("tags",), ("count", "scores"), ("logits",), ("embedding",)])
def test_any_selection_of_outputs_can_be_requested(client, pictures, outputs):
    assert set(ask(client, pictures[:1], outputs=outputs)) == set(outputs)


def test_a_request_for_the_embedding_alone_does_not_run_the_head(server, client, pictures):
    def runs_head(*outputs):
        ask_once = partial(ask, client, pictures[:1], outputs=outputs)
        return runs(server, client, ["ram_head"], ask_once)

    assert not runs_head("embedding")
    assert runs_head("embedding", "tags")


def test_options_are_applied(client, pictures, vocabulary, expected_logits):
    (logits,) = expected_logits(pictures[:1])
    options = {"threshold": 0.0005, "top_k": 6, "exclude": ["tag 3", "标签5"]}
    answered = tags_of(ask(client, pictures[:1], **options))
    assert [tag[3] for tag in answered] == select(logits, vocabulary, TagOptions(**options))[
        0
    ].tolist()
    assert len(answered) == 6


def test_a_threshold_of_0_returns_every_tag(client, pictures, expected_logits):
    outputs = ask(client, pictures[:1], threshold=0)
    assert outputs["count"].tolist() == [[40]]
    scores = np.sort(sigmoid(expected_logits(pictures[:1])[0]))[::-1]
    np.testing.assert_allclose(outputs["scores"][0], scores, atol=1e-4)


def test_a_batch_of_the_largest_size_is_answered_as_its_images_alone(client, pictures):
    images = [pictures[index % len(pictures)] for index in range(MAX_BATCH)]
    alone = [tags_of(ask(client, [picture])) for picture in pictures]
    outputs = ask(client, images)
    for row in range(MAX_BATCH):
        for answered, expected in zip(
            tags_of(outputs, row), alone[row % len(pictures)], strict=True
        ):
            assert answered[:2] == expected[:2]
            assert answered[2] == pytest.approx(expected[2], abs=1e-5)


def test_each_image_of_a_batch_may_have_its_own_options(client, pictures):
    outputs = ask(client, pictures[:2], threshold=[0.0, 1.0], exclude=[["tag 1"], [""]])
    assert outputs["count"].tolist() == [[39], [0]]


def test_a_larger_batch_is_refused(client, pictures):
    message = refusal(client, pictures[:1] * (MAX_BATCH + 1))
    assert "batch-size must be <= 32" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": float("nan")}, "threshold: nan is not between 0 and 1"),
        ({"threshold": 1.5}, "threshold: 1.5 is not between 0 and 1"),
        ({"top_k": -1}, "top_k: -1 is negative"),
        ({"exclude": ["dragonfly"]}, "exclude: unknown tag 'dragonfly'"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused_by_the_inputs_name(client, pictures, options, message):
    assert refusal(client, pictures[:1], **options).startswith(message)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "image: empty"),
        (b"a text", "image: not an image"),
        (b"\xff\xd8\xff\xe0 no JPEG", "image: "),
        (b"data:image/png;base64", "image: a data: URL without a comma"),
    ],
    ids=str,
)
def test_a_bad_image_is_refused_with_what_is_wrong(client, image, message):
    assert refusal(client, [image]).startswith(message)


def test_a_bad_image_among_several_of_a_request_is_named(client, pictures):
    assert refusal(client, [*pictures[:2], pictures[0][:500]]).startswith("image[2]: ")


def test_an_image_over_the_limits_is_refused(client, encode):
    from PIL import Image

    enormous = encode(Image.new("1", (20_000, 6_000)))
    assert "over the limit of 100000000 (max_pixels)" in refusal(client, [enormous])
    assert "over the limit of 20971520 (max_bytes)" in refusal(client, [b"BM" + bytes(21_000_000)])


def test_bad_images_fail_alone_among_requests_that_are_batched_together(server, client, pictures):
    """More requests than the server takes at once, so that the dynamic batcher joins them."""
    images = [b"broken" if index % 5 == 3 else pictures[index % 5] for index in range(100)]
    begun = before = preprocessed(server, client)
    expected = [tags_of(ask(client, [picture])) for picture in pictures[:5]]
    while before[0] < begun[0] + 5:  # Triton counts a moment after it has answered
        before = preprocessed(server, client)

    def answer(image):
        try:
            return tags_of(ask(client, [image]))
        except InferenceServerException as error:
            return error.status()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(answer, images))
    for index, answered in enumerate(answers):
        if index % 5 == 3:
            assert answered == "StatusCode.INVALID_ARGUMENT"
        else:
            assert [tag[3] for tag in answered] == [tag[3] for tag in expected[index % 5]]
    requests = 0
    while requests < 100:
        requests, executions = np.subtract(preprocessed(server, client), before)
    assert executions < requests == 100, "no requests were batched: the test shows nothing"


def preprocessed(server, client):
    """How many images the preprocessor was given, and in how many batches."""
    model = statistics(server, client, "ram_preprocess")
    failed = model.inference_stats.fail.count
    return model.inference_count + failed, model.execution_count


def post(server, path, body):
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_plain_json_and_the_generate_endpoint_take_base64_and_data_urls(server, client, pictures):
    expected = tags_of(ask(client, pictures[:1], top_k=3, threshold=0.001))
    text = base64.b64encode(pictures[0]).decode()
    for image in (text, f"data:image/jpeg;base64,{text}"):
        body = {"image": image, "top_k": 3, "threshold": 0.001}
        status, answer = post(server, "/v2/models/ram/generate", body)
        assert (status, answer["tags"]) == (200, [tag[0] for tag in expected])
        assert answer["tags_zh"] == [tag[1] for tag in expected]
        inputs = [
            {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [image]},
            {"name": "top_k", "shape": [1, 1], "datatype": "INT32", "data": [3]},
            {"name": "threshold", "shape": [1, 1], "datatype": "FP32", "data": [0.001]},
        ]
        status, answer = post(
            server, "/v2/models/ram/infer", {"inputs": inputs, "outputs": [{"name": "tag_ids"}]}
        )
        assert (status, answer["outputs"][0]["data"]) == (200, [tag[3] for tag in expected])


def test_http_clients_are_told_what_is_wrong_too(server):
    status, answer = post(server, "/v2/models/ram/generate", {"image": "bm90IGFuIGltYWdl"})
    assert status == 400
    assert "image: not an image" in answer["error"]


@pytest.mark.parametrize("model", ["ram", "ram_open"])
def test_a_mistyped_option_is_refused_by_its_name(server, pictures, model):
    image = base64.b64encode(pictures[0]).decode()
    labels = {"labels": ["tag 1"]} if model == "ram_open" else {}
    body = {"image": image, "treshold": 0.9} | labels
    if model == "ram":
        status, answer = post(server, f"/v2/models/{model}/generate", body)
        assert status == 400
        assert "'treshold': unknown parameter; did you mean 'threshold'?" in answer["error"]
    inputs = [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [image]}]
    if labels:
        inputs.append({"name": "labels", "shape": [1], "datatype": "BYTES", "data": ["tag 1"]})
    infer = f"/v2/models/{model}/infer"
    status, answer = post(server, infer, {"inputs": inputs, "parameters": {"topk": 3}})
    assert status == 400
    assert "'topk': unknown parameter; did you mean 'top_k'?" in answer["error"]
    status, _ = post(server, infer, {"inputs": inputs, "parameters": {"timeout": 10**7}})
    assert status == 200


def errors_of(client, images, requests, **options):
    """Send the same request a number of times at once; returns each one's error, or None."""
    errors = []
    done = threading.Semaphore(0)

    def keep(result, error):
        errors.append(error)
        done.release()

    for _ in range(requests):
        client.async_infer("ram", infer_inputs(images), keep, client_timeout=PATIENCE, **options)
    assert all(done.acquire(timeout=PATIENCE) for _ in range(requests))
    return errors


def test_an_overload_is_refused_and_leaves_nothing_behind(server, client, pictures):
    """Far more at once than all queues take: each is answered or told UNAVAILABLE, and soon."""
    errors = errors_of(client, pictures[:1], requests=600)
    statuses = {error.status() if error else "OK" for error in errors}
    assert statuses == {"OK", "StatusCode.UNAVAILABLE"}
    assert tags_of(ask(client, pictures[:1]))


def test_what_waits_longer_than_its_own_timeout_is_not_worked_on(server, client, pictures):
    errors = errors_of(client, pictures[:1] * MAX_BATCH, requests=24, timeout=1)
    assert any("timeout" in error.message() for error in errors if error)
    assert tags_of(ask(client, pictures[:1]))


def test_the_server_is_as_live_as_before_after_all_of_this(server, client, pictures):
    for _ in range(3):
        refusal(client, [b""])
    assert client.is_server_ready()
    assert tags_of(ask(client, pictures[:1]))


def test_inputs_can_be_reused_by_a_client(client, pictures):
    inputs = infer_inputs(pictures[:1])
    first, second = (client.infer("ram", inputs).as_numpy("logits") for _ in range(2))
    np.testing.assert_array_equal(first, second)
