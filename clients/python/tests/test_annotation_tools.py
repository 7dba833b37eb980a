"""The examples for annotation tools, each in its own package, on a real tritonserver.

FiftyOne's pins and those of label-studio-sdk are of other versions than this project's: where they
are missing, these tests skip.
"""

import base64
import importlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from ram_client import RamClient

EXAMPLES = Path(__file__).parents[1] / "examples"
ALL = 0.0  # every tag's score exceeds it
CHOICES = """<View><Image name="picture" value="$image"/>
<Choices name="tags" toName="picture" choice="multiple">{}</Choices></View>"""
needs_fiftyone = pytest.mark.skipif(
    find_spec("fiftyone") is None, reason="fiftyone is not installed (540 MB)"
)
needs_label_studio = pytest.mark.skipif(
    find_spec("label_studio_ml") is None or find_spec("label_studio_ml.response") is None,
    reason="label-studio-ml 2, of its repository, is not installed (340 MB)",
)


@pytest.fixture(scope="module")
def client(server):
    with RamClient(server.grpc) as client:
        yield client


@pytest.fixture
def example(monkeypatch):
    """Import an example, as its users do from its folder."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def arrays(pictures):
    return [np.asarray(picture) for picture in pictures]


@pytest.fixture
def fiftyone_model(example, monkeypatch, server):
    return lambda **settings: example("fiftyone_ram").RamModel(server.grpc, **settings)


@needs_fiftyone
def test_fiftyone_gets_classifications_and_embeddings(fiftyone_model, client, arrays):
    import fiftyone as fo
    import fiftyone.core.models as fom

    model = fiftyone_model(threshold=ALL, top_k=3)
    assert isinstance(model, fom.Model) and isinstance(model, fom.EmbeddingsMixin)
    assert model.media_type == "image" and model.has_embeddings and not model.ragged_batches
    expected = client.tag_batch(arrays, threshold=ALL, top_k=3)
    for labels, tags in zip(model.predict_all(arrays), expected, strict=True):
        found = [(one.label, one.name_zh) for one in labels.classifications]
        assert found == [(tag.name, tag.name_zh) for tag in tags]
        scores = [one.confidence for one in labels.classifications]
        assert scores == pytest.approx([tag.score for tag in tags], abs=1e-5)
    sample = fo.Sample(filepath="a.png")
    sample.add_labels(model.predict(arrays[0]), label_field="ram")
    assert [one.label for one in sample["ram"].classifications] == [tag.name for tag in expected[0]]
    embeddings = model.embed_all(arrays)
    assert embeddings.shape[0] == len(arrays) and embeddings.dtype == np.float32
    assert model.embed(arrays[1]) == pytest.approx(embeddings[1], abs=1e-4)


@pytest.fixture
def dataset(monkeypatch, tmp_path, pictures):
    """The pictures as a FiftyOne data set, kept in memory in place of a MongoDB."""
    mongomock = pytest.importorskip("mongomock", reason="mongomock is not installed")
    import fiftyone as fo
    import mongoengine

    database = mongomock.MongoClient()
    monkeypatch.setattr("fiftyone.core.odm.database._client", database)
    monkeypatch.setattr("fiftyone.core.odm.database._connect", lambda: None)
    mongoengine.connect("fiftyone", mongo_client_class=lambda *_, **__: database)
    dataset = fo.Dataset("pictures")
    for place, picture in enumerate(pictures):
        path = str(tmp_path / f"{place}.png")
        picture.save(path)
        dataset.add_sample(fo.Sample(filepath=path))
    yield dataset
    mongoengine.disconnect()


@needs_fiftyone
def test_fiftyone_applies_it_to_a_data_set(fiftyone_model, dataset, client, arrays):
    model = fiftyone_model(threshold=ALL)
    dataset.apply_model(model, "ram", batch_size=2, skip_failures=False, progress=False)
    dataset.compute_embeddings(
        model, "embedding", batch_size=2, skip_failures=False, progress=False
    )
    expected = zip(client.tag_batch(arrays, threshold=ALL), client.embed_batch(arrays), strict=True)
    for sample, (tags, embedding) in zip(dataset, expected, strict=True):
        scores = {one.label: one.confidence for one in sample["ram"].classifications}
        assert scores == pytest.approx({tag.name: tag.score for tag in tags}, abs=1e-5)
        assert sample["embedding"] == pytest.approx(embedding, abs=1e-4)


@pytest.fixture
def backend(example, monkeypatch, tmp_path_factory, server):
    """The backend's Flask application, before a server."""
    monkeypatch.setenv("RAM_SERVER", server.grpc)
    # Its cache goes there, for as long as the package is imported.
    monkeypatch.setenv("MODEL_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("downloads")))
    module = example("label_studio_ram")
    module._client.cache_clear()
    yield module.app.test_client()
    module._client().close()


def predictions(backend, config, tasks):
    """What Label Studio gets for tasks, asking as it does."""
    request = {"tasks": tasks, "project": "7.1", "label_config": config, "params": {}}
    answer = backend.post("/predict", json=request)
    assert answer.status_code == 200, answer.text
    return answer.json["results"]


@pytest.fixture
def website(tmp_path, photos):
    """Where Label Studio's pictures are: a server that has the first one as a.png."""
    (tmp_path / "a.png").write_bytes(photos[0])
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def data_url(photo):
    return "data:image/png;base64," + base64.b64encode(photo).decode()


@needs_label_studio
def test_label_studio_gets_the_choices_that_a_picture_has(backend, client, photos, website):
    assert backend.get("/health").json["status"] == "UP"
    tags = client.tag(photos[0])
    assert len(tags) > 2
    wanted = [tags[2].name_zh, tags[0].name.upper()]
    options = "".join(f'<Choice value="{name}"/>' for name in [*wanted, "a unicorn"])
    config = CHOICES.format(options)
    setup = {"project": "7.1", "schema": config}
    assert backend.post("/setup", json=setup).json == {"model_version": "ram"}
    tasks = [
        {"id": 1, "data": {"image": data_url(photos[0])}},
        {"id": 2, "data": {"image": data_url(b"no picture")}},
        {"id": 3, "data": {"image": f"{website}/a.png"}},
        {"id": 4, "data": {"image": f"{website}/missing.png"}},
    ]
    first, bad, fetched, missing = predictions(backend, config, tasks)
    (result,) = first["result"]
    names = {"from_name": "tags", "to_name": "picture", "type": "choices"}
    assert result.items() >= names.items()
    assert result["value"] == {"choices": wanted}
    assert first["score"] == pytest.approx((tags[2].score + tags[0].score) / 2, abs=1e-5)
    assert fetched["result"][0]["value"] == result["value"]
    for prediction in (bad, missing):
        assert (prediction["result"], prediction["score"]) == ([], 0)


@needs_label_studio
def test_label_studio_gets_all_tags_of_a_project_without_choices(backend, client, photos):
    tasks = [{"id": 1, "data": {"image": data_url(photos[1])}}]
    (prediction,) = predictions(backend, CHOICES.format(""), tasks)
    names = [tag.name for tag in client.tag(photos[1])]
    assert prediction["result"][0]["value"]["choices"] == names


@needs_label_studio
def test_label_studio_is_told_that_there_is_no_server(backend, photos, unreachable, monkeypatch):
    monkeypatch.setenv("RAM_SERVER", unreachable)
    task = {"id": 1, "data": {"image": data_url(photos[0])}}
    request = {"tasks": [task], "project": "7.1", "label_config": CHOICES.format("")}
    answer = backend.post("/predict", json=request)
    assert answer.status_code == 500 and unreachable in answer.text
