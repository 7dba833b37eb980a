"""Names of a request's labels, looked up in the served vocabulary."""

import numpy as np
import pytest
from ram_triton.server_code import KnownLabels, RequestError, Vocabulary

TAGS = ["cat", "Turkey", "turkey", "hot dog", "hot_dog", "bank", "shore", "DVD"]
CHINESE = ["猫", "土耳其", "火鸡", "热狗", "辣狗", "岸", "岸", "dvd"]


@pytest.fixture
def known():
    embeddings = np.arange(2 * len(TAGS), dtype=np.float32).reshape(-1, 1, 2)
    return KnownLabels(
        Vocabulary(TAGS, CHINESE, np.full(len(TAGS), 0.5, np.float32)), embeddings, 0
    )


def test_every_tag_is_found_by_its_own_name(known):
    assert [known.find(tag) for tag in TAGS] == list(range(len(TAGS)))
    ids = known.embed(TAGS, [""] * len(TAGS), embed_new=None)["label_embeds"][:, 0] / 2
    assert ids.tolist() == list(range(len(TAGS)))


@pytest.mark.parametrize(
    ("name", "id"), [("CAT", 0), (" Cat. ", 0), ("猫", 0), ("dvd", 7), ("dog", None)]
)
def test_a_tag_is_found_by_names_that_are_the_same(known, name, id):
    assert known.find(name) == id


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("TURKEY", "'Turkey' or 'turkey'"),
        ("Hot Dog", "'hot dog' or 'hot_dog'"),
        ("岸", "'bank' or"),
    ],
)
def test_a_name_of_several_tags_is_refused_with_the_names_to_choose_from(known, name, choice):
    with pytest.raises(RequestError, match=f"^labels: '{name}' is the name of several tags: use"):
        known.find(name)
    with pytest.raises(RequestError, match=choice):
        known.find(name)


def test_names_that_are_the_same_are_excluded_together(known):
    assert known.vocabulary.find("Turkey") == [1, 2]
    assert known.vocabulary.find("hot dog.") == [3, 4]
    assert known.vocabulary.find("岸") == [5, 6]
