"""Which answers are right in a load test."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
from ram_client import InvalidRequest, ServerError, Tag
from ram_triton.errors import LoadError

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")  # locust would replace this process's sockets
    from ram_load.expected import MAX_PAIRS, Expected, Rehearsal, WrongAnswer, guess_thresholds
    from ram_load.traffic import Kind, Picture, Request, make_broken
    from ram_load.transports import ask_thresholds

PICTURES = [Picture("cat.jpg", b"cat"), Picture("dog.jpg", b"dog")]
CAT = [0.9, 0.8, 0.503, 0.1]
DOG = [0.1, 0.2, 0.9, 0.8]
PLAIN = Kind("plain")


def tags(scores, *ids):
    named = [Tag(f"tag {id}", f"标签{id}", scores[id], id) for id in ids]
    return sorted(named, key=lambda tag: -tag.score)


def make_expected(cat=CAT, dog=DOG, labels=2, copies=0):
    """All thresholds are 0.5: tag 2 of the cat is the one that rounding may decide."""
    entries = {
        picture.sha256: {"name": picture.name, "scores": scores, "label_scores": scores[:labels]}
        for picture, scores in zip(PICTURES, (cat, dog), strict=True)
    }
    entries |= {f"cat {index}": entries[PICTURES[0].sha256] for index in range(copies)}
    values = {
        "tags": [f"tag {id}" for id in range(4)],
        "tags_zh": [f"标签{id}" for id in range(4)],
        "thresholds": [0.5] * 4,
        "pictures": entries,
    }
    return Expected(values, tolerance=0.005)


@pytest.fixture
def expected():
    return make_expected()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (tags(CAT, 0, 1, 2), None),
        (tags([0.904, 0.796, 0.499, 0.1], 0, 1), None),
        (tags(CAT, 0, 2), "'tag 1' is missing"),
        (tags(CAT, 0, 1, 2, 3), "'tag 3' is too much"),
        (tags([0.91, 0.8, 0.503], 0, 1, 2), "'tag 0' has the score 0.91000, not"),
        (tags([float("nan"), 0.8, 0.503], 0, 1, 2), "'tag 0' has the score nan, not"),
        (tags(CAT, 0, 1, 2)[::-1], "the tags are not in the order of their scores"),
        (tags(CAT, 0, 0, 1, 2), "'tag 0' occurs twice"),
        ([replace(tags(CAT, 0)[0], name="dog"), *tags(CAT, 1, 2)], "is called 'dog'"),
        (tags(DOG, 2, 3), "swapped, this is the answer of dog.jpg"),
    ],
    ids=["same", "rounded", "missing", "extra", "score", "nan", "order", "twice", "name", "swap"],
)
def test_an_answer_must_be_that_of_before_but_for_rounding(expected, answer, fault):
    found = expected.find_fault(Request(PLAIN, PICTURES[:1]), [answer])
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


def test_the_last_of_top_k_may_change_places_with_an_equal_one(expected):
    top_k = Request(Kind("top_k", top_k=1), PICTURES[:1])
    assert expected.find_fault(top_k, [tags(CAT, 0)]) is None
    assert expected.find_fault(top_k, [tags(CAT, 1)])
    equal = make_expected(cat=[0.9, 0.895, 0.503, 0.1])
    assert equal.find_fault(top_k, [tags([0.9, 0.895], 1)]) is None
    fault = equal.find_fault(top_k, [tags([0.9, 0.895], 0, 1)])
    assert "at most 1 were asked for" in str(fault)


def test_a_threshold_of_the_request_replaces_the_tags_own(expected):
    low = Request(Kind("threshold", threshold=0.05), PICTURES[:1])
    assert expected.find_fault(low, [tags(CAT, 0, 1, 2, 3)]) is None
    assert "'tag 3' is missing" in str(expected.find_fault(low, [tags(CAT, 0, 1, 2)]))


def test_swapped_rows_of_a_batch_are_noticed(expected):
    batch = Request(Kind("batch", images=2), PICTURES)
    right = [tags(CAT, 0, 1, 2), tags(DOG, 2, 3)]
    assert expected.find_fault(batch, right) is None
    assert "swapped" in str(expected.find_fault(batch, right[::-1]))
    assert "1 rows for 2 images" in str(expected.find_fault(batch, right[:1]))


def test_answers_to_labels_are_compared_with_those_to_labels(expected):
    assert expected.labels == ["tag 0", "tag 1"]
    request = Request(Kind("open", labels=expected.labels), PICTURES[:1])
    assert request.kind.label == "open, 2 labels"
    assert expected.find_fault(request, [tags(CAT, 0, 1)]) is None
    assert "'tag 1' is missing" in str(expected.find_fault(request, [tags(CAT, 0)]))
    assert "tag 2 does not exist" in str(expected.find_fault(request, [tags(CAT, 0, 1, 2)]))
    assert make_expected(labels=0).labels == []


def test_a_broken_image_has_to_be_refused_by_its_name(expected):
    broken = Request(Kind("broken", is_refused=True), PICTURES[:1])
    assert broken.kind.label == "broken (error expected)"
    assert expected.find_fault(broken, InvalidRequest("image: not an image")) is None
    assert isinstance(expected.find_fault(broken, [tags(CAT, 0)]), WrongAnswer)
    assert isinstance(expected.find_fault(broken, ServerError("stub died")), ServerError)


def test_an_error_in_place_of_an_answer_is_a_failure(expected):
    error = ServerError("out of memory")
    assert expected.find_fault(Request(PLAIN, PICTURES[:1]), error) is error


def test_faults_that_differ_in_their_scores_alone_share_a_text(expected):
    """Locust has a row per text: with a row per score its tables would have no end."""
    request = Request(PLAIN, PICTURES[:1])
    scores = [0.91, 0.92, 0.93]
    faults = {str(expected.find_fault(request, [tags([s, 0.8], 0, 1)])) for s in scores}
    (text,) = faults
    assert "0.91000" in text


def test_expected_answers_survive_a_file(expected, tmp_path):
    path = tmp_path / "new" / "expected.json"
    expected.save(path)
    read = Expected.load(path, tolerance=0.005)
    assert read.values == expected.values
    assert read.count_alike() == (0, 1)
    read.require(PICTURES)
    with pytest.raises(LoadError, match=r"bird\.jpg: has no expected answer"):
        read.require([Picture("bird.jpg", b"bird")])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pictures": {"a": 1}}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "expected.json").write_text(text)
    with pytest.raises(LoadError, match="contains no expected answers"):
        Expected.load(tmp_path / "expected.json", 0.005)
    with pytest.raises(LoadError, match="No such file"):
        Expected.load(tmp_path / "missing.json", 0.005)


def test_of_many_pictures_a_part_of_the_pairs_is_compared():
    alike, pairs = make_expected(copies=200).count_alike()
    assert pairs == MAX_PAIRS
    assert 0 < alike <= pairs


@pytest.fixture(scope="module")
def rehearsal(server, picture_files):
    """What the server answers to one picture, and the options that it was asked with."""
    options = Namespace(
        grpc_server=server.grpc,
        timeout=60.0,
        repository="",
        labels=20,
        threshold=0.0005,
        top_k=5,
        batch=4,
        tolerance=1e-5,
    )
    pictures = [Picture(picture_files[0].name, picture_files[0].read_bytes())]
    return options, pictures, Rehearsal(options).run(pictures, make_broken(pictures))


def test_thresholds_are_asked_from_the_server(server, vocabulary, rehearsal):
    asked = ask_thresholds(server.grpc, vocabulary.tags, 60.0)
    np.testing.assert_array_equal(asked, vocabulary.thresholds)
    _, _, expected = rehearsal
    assert expected.values["thresholds"] == vocabulary.thresholds.tolist()
    assert expected.values["tags"] == list(vocabulary.tags)
    assert ask_thresholds(server.grpc, ["unknown to the server"], 60.0) is None


def test_thresholds_are_read_from_the_repository(repository, rehearsal, tmp_path):
    options, pictures, expected = rehearsal
    from_files = Namespace(**vars(options) | {"repository": str(repository)})
    assert Rehearsal(from_files).run(pictures, []).values == expected.values
    elsewhere = Namespace(**vars(options) | {"repository": str(tmp_path)})
    with pytest.raises(LoadError, match=r"vocabulary\.json: No such file"):
        Rehearsal(elsewhere).run(pictures, [])


def test_the_vocabulary_of_another_repository_is_noticed(repository, rehearsal, tmp_path):
    options, pictures, _ = rehearsal
    path = tmp_path / "ram_postprocess" / "1" / "vocabulary.json"
    path.parent.mkdir(parents=True)
    text = (repository / path.relative_to(tmp_path)).read_text("utf-8")
    path.write_text(text.replace('"tag 1"', '"dog"'), "utf-8")
    other = Namespace(**vars(options) | {"repository": str(tmp_path)})
    with pytest.raises(LoadError, match="has no tag 1 'tag 1', which the server has"):
        Rehearsal(other).run(pictures, [])


def test_guessed_thresholds_are_between_the_scores_with_and_without_a_tag():
    scores = np.array([[0.9, 0.2, 0.4], [0.5, 0.1, 0.6]])
    guessed = guess_thresholds(scores, np.array([[True, False, True], [False, False, True]]))
    np.testing.assert_allclose(guessed, [0.7, 0.6, 0.2])
