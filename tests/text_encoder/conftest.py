"""A tiny CLIP."""

import pytest
from support.tiny_clip import save_for_transformers, tiny_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return save_for_transformers(tiny_clip(), tmp_path_factory.mktemp("clip") / "tiny")
