"""`EngineTagger` answers as the server does that serves the same repository."""

import numpy as np
import pyarrow
import pytest
from ram_client import InvalidRequest
from ram_client.ray import RamTagger
from ram_triton.errors import RepositoryError
from ram_triton.ray import AT_ONCE, EngineTagger

EXACT = ("tags", "tags_zh", "ids", "error", "key")


@pytest.fixture(scope="module")
def batch(picture_files):
    """More pictures than the engine gets at once, and what is none."""
    contents = [file.read_bytes() for file in picture_files] * 2
    contents[3:3] = [b"\xff\xd8 no more", None, b""]
    assert len(contents) > AT_ONCE
    return pyarrow.table({"key": [*range(len(contents))], "image": contents})


@pytest.mark.parametrize(
    "settings",
    [
        {"embedding": True, "logits": True},
        {"threshold": 0.0, "top_k": 3, "exclude": ["tag 1", "标签3"]},
    ],
)
def test_its_columns_are_those_of_the_server(repository, server, batch, settings):
    found = EngineTagger(repository, threads=1, **settings)(batch)
    wanted = RamTagger(server.grpc, **settings)(batch)
    assert found.schema == wanted.schema
    for row, other in zip(found.to_pylist(), wanted.to_pylist(), strict=True):
        assert [row[name] for name in EXACT] == [other[name] for name in EXACT]
        for name in row.keys() - set(EXACT):
            assert row[name] == (other[name] and pytest.approx(other[name], abs=1e-3)), name
    assert sum(row["error"] is None for row in found.to_pylist()) == len(batch) - 3


def test_arrays_as_numpy(repository, photo):
    arrays = np.empty(1, object)
    arrays[0] = np.asarray(photo)
    tagger = EngineTagger(repository)
    (row,) = tagger({"image": arrays}).to_pylist()
    assert row["error"] is None
    assert tagger({"image": np.empty(0, object)}).num_rows == 0


def test_what_all_images_would_meet_is_raised_at_the_start(repository, tmp_path):
    with pytest.raises(InvalidRequest, match="threshold: 2 is not between 0 and 1"):
        EngineTagger(repository, threshold=2.0)
    with pytest.raises(InvalidRequest, match="exclude: unknown tag 'tga 1'; did you mean"):
        EngineTagger(repository, exclude=["tga 1"])
    with pytest.raises(RepositoryError, match="contains no model"):
        EngineTagger(tmp_path)
