"""The served ensemble `ram_open`: requests that bring their own tags, here names that are known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from ram_triton.engines.tagger import torch_tagger
from ram_triton.server_code import preprocess, select
from support import PATIENCE
from support.requests_to_ram import OPEN_OUTPUTS, ask, ask_open, runs, tags_of
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ALL = [f"tag {index}" for index in range(40)]


def refusal(client, images, labels, **options):
    with pytest.raises(InferenceServerException) as refused:
        ask_open(client, images, labels, **options)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    message = refused.value.message().removeprefix("in ensemble 'ram_open', ")
    assert "\n" not in message and "Traceback" not in message
    return message


def test_with_all_of_the_vocabulary_it_answers_as_ram(client, pictures):
    for options in ({}, {"threshold": 0}, {"top_k": 5}):
        closed, opened = (
            ask(client, pictures[:3], **options),
            ask_open(client, pictures[:3], ALL, **options),
        )
        for row in range(3):
            assert [tag[:2] for tag in tags_of(opened, row)] == [
                tag[:2] for tag in tags_of(closed, row)
            ]
        np.testing.assert_allclose(opened["scores"], closed["scores"], atol=1e-5)
        assert (opened["tag_ids"] == closed["tag_ids"]).all()


def test_labels_have_pytorchs_scores_and_the_vocabularys_names_and_thresholds(
    client, pictures, model, vocabulary
):
    labels = ["TAG 31 ", "标签5", "tag 2", "tag 12", "tag 17"]
    ids = [31, 5, 2, 12, 17]
    for picture in pictures:
        pixels = preprocess(picture, model.variant.image_size)
        (logits,) = torch_tagger(model)(pixels[None])
        chosen, scores = select(logits, vocabulary)
        expected = [(id, score) for id, score in zip(chosen, scores, strict=True) if id in ids]
        answered = tags_of(ask_open(client, [picture], labels))
        assert [tag[:2] for tag in answered] == [
            (vocabulary.tags[id], vocabulary.tags_zh[id]) for id, _ in expected
        ]
        assert [ids[tag[3]] for tag in answered] == [id for id, _ in expected]
        np.testing.assert_allclose([t[2] for t in answered], [s for _, s in expected], atol=1e-4)


def test_each_tag_tells_that_it_is_of_the_vocabulary_and_padding_is_not(client, pictures):
    outputs = ask_open(client, pictures[:2], ALL[:5], threshold=[0.0, 1.0])
    assert outputs["count"].tolist() == [[5], [0]]
    assert outputs["known"].tolist() == [[True] * 5, [False] * 5]
    assert outputs["tag_ids"][1].tolist() == [-1] * 5


def test_options_may_differ_from_image_to_image(client, pictures):
    outputs = ask_open(client, pictures[:3], ALL, threshold=0, top_k=[1, 0, 7])
    assert outputs["count"].tolist() == [[1], [40], [7]]


def test_over_http_it_gives_the_same(server, client, pictures):
    inputs = {"image": [[pictures[0]]], "labels": ["tag 3", "标签5", "tag 8"]}
    tensors = []
    for name, values in inputs.items():
        array = np.array(values, np.object_)
        tensors.append(http.InferInput(name, list(array.shape), "BYTES"))
        tensors[-1].set_data_from_numpy(array)
    with http.InferenceServerClient(server.http) as over_http:
        result = over_http.infer("ram_open", tensors)
    expected = ask_open(client, pictures[:1], inputs["labels"])
    assert expected["count"] > 0
    for name in OPEN_OUTPUTS:
        assert result.as_numpy(name).tolist() == expected[name].tolist()


def test_requests_with_other_labels_at_the_same_time_get_their_own_answers(client, pictures):
    requests = [
        (pictures[index % len(pictures)], [f"tag {(index * step) % 37}" for step in (1, 2, 5)])
        for index in range(1, 25)
    ]

    def send(request):
        picture, labels = request
        return tags_of(ask_open(client, [picture], labels, threshold=0))

    alone = [send(request) for request in requests]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(send, requests))
    for one, other in zip(alone, together, strict=True):
        assert {tag[3]: tag[:2] for tag in one} == {tag[3]: tag[:2] for tag in other}
        scores = {tag[3]: tag[2] for tag in one}
        assert {tag[3]: tag[2] for tag in other} == pytest.approx(scores, abs=1e-5)


def test_the_largest_number_of_images_is_that_of_ram(client, pictures):
    assert ask_open(client, pictures[:1] * 32, ALL[:1], threshold=0)["count"].sum() == 32
    assert "batch-size must be <= 32" in refusal(client, pictures[:1] * 33, ALL[:1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels: empty, name at least one"),
        (["tag 1", " "], "labels[1]: empty"),
        (["tag 1", "x" * 201], "labels[1]: 201 bytes are over the limit of 200 (max_name_bytes)"),
        ([str(n) for n in range(5001)], "labels: 5001 are over the limit of 5000 (max_labels)"),
        (["tag 1", b"\xff\xfe"], r"labels[1]: b'\xff\xfe' is not UTF-8"),
        (["tag 1", "TAG 1"], "labels: 'tag 1' and 'TAG 1' are the same label"),
        (["tag 4", "标签4"], "labels: 'tag 4' and '标签4' are the same label"),
        (["tag 1", "Tag_1."], "labels: 'tag 1' and 'Tag_1.' are the same label"),
        (["elf king", "elf_king"], "labels: 'elf king' and 'elf_king' are the same label"),
        (["x", "x"], "labels: 'x' and 'x' are the same label"),
        (["猫", "猫"], "labels: '猫' and '猫' are the same label"),
        (["tag 1", "."], "labels[1]: '.' is not a name"),
        (["apple\t苹果\t0.3"], "labels[0]: 'apple\\t苹果\\t0.3' contains characters that cannot"),
        (["a\0b"], "labels[0]: 'a\\x00b' contains characters that cannot be printed"),
        (["标签3"], "labels: '标签3' is the name of several tags: use 'tag 3' or 'tag 7'"),
        (["tag 1", "dragon"], "labels: the vocabulary does not contain 'dragon', and there is no "),
    ],
    ids=range(16),
)
def test_labels_that_cannot_be_used_are_refused_by_the_inputs_name(
    client, pictures, labels, message
):
    assert refusal(client, pictures[:1], labels).startswith(message)


def test_unknown_names_are_refused_with_what_to_build(client, pictures):
    message = refusal(client, pictures[:1], ["dragon", "elf", "orc", "tag 1", "troll"])
    assert "does not contain 'dragon', 'elf', 'orc' and 1 more, and there" in message
    assert "make text-encoder CHECKPOINT=DIR" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 2.0}, "threshold: 2 is not between 0 and 1"),
        ({"top_k": -1}, "top_k: -1 is negative"),
        ({"labels_zh": ["甲", "乙"]}, "labels_zh: 2 names for 1 labels"),
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused_by_the_inputs_name(client, pictures, options, message):
    assert refusal(client, pictures[:1], ["tag 1"], **options).startswith(message)


def test_a_bad_image_is_refused_with_what_is_wrong(client):
    assert refusal(client, [b"a text"], ["tag 1"]).startswith("image: not an image")


def ask_postprocess(client, **changes):
    """Ask the last step directly, which is not meant for callers, for two labels of one image."""
    tensors = {
        "logits": np.zeros((1, 2), np.float32),
        "names": np.array([b"cat", b"dog"], np.object_),
        "names_zh": np.array([b"", b""], np.object_),
        "thresholds": np.zeros(2, np.float32),
        "in_vocabulary": np.ones(2, bool),
    } | changes
    inputs = []
    for name, array in tensors.items():
        inputs.append(grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return client.infer("ram_open_postprocess", inputs, client_timeout=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"names": np.array([b"cat", b"\xff\xfe"], np.object_)},
            "names[1]: b'\\xff\\xfe' is not UTF-8",
        ),
        ({"names_zh": np.array([b"\xe7", b""], np.object_)}, "names_zh[0]: b'\\xe7' is not UTF-8"),
        ({"names": np.array([b"cat"], np.object_)}, "names: 1 for 2 labels"),
        ({"thresholds": np.zeros(3, np.float32)}, "thresholds: 3 for 2 labels"),
        ({"in_vocabulary": np.ones(0, bool)}, "in_vocabulary: 0 for 2 labels"),
        ({"threshold": np.zeros((2, 1), np.float32)}, "threshold: 2 rows for 1 images"),
    ],
    ids=range(6),
)
def test_a_step_that_is_asked_directly_says_what_is_wrong(client, changes, message):
    assert ask_postprocess(client).as_numpy("count") == 2
    with pytest.raises(InferenceServerException) as refused:
        ask_postprocess(client, **changes)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert refused.value.message() == message


def test_many_wrong_requests_do_not_stop_the_server(client, pictures):
    wrong = [([b"no image"], ["tag 1"]), (pictures[:1], ["dragon"]), (pictures[:1], ["a", "A"])]
    for index in range(51):
        refusal(client, *wrong[index % 3], timeout=PATIENCE)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: refusal(client, *wrong[i % 3], timeout=PATIENCE), range(48)))
    assert ask_open(client, pictures[:1], ALL, threshold=0)["count"] == 40


def test_the_encoder_is_rams_own(server, client, pictures):
    def ask_once():
        ask_open(client, pictures[:2], ["tag 1"])

    assert runs(server, client, ["ram_encoder"], ask_once)
    assert not runs(server, client, ["ram_head"], ask_once)
