"""Heat maps as they are served: PyTorch's, in the tags' places, and only if they are asked for."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from ram_triton.model.maps import KnownMaps
from ram_triton.server_code import postprocessing, preprocess
from support.requests_to_ram import TAG_OUTPUTS, ask, ask_open, runs

WITH_MAPS = (*TAG_OUTPUTS, "maps")
ALL = [f"tag {index}" for index in range(40)]
SIZE, SIDE = 96, 3  # of the tiny model
ORIENTATION = 0x0112


def expected_maps(model, images, tag_ids):
    """What PyTorch computes for encoded images, as the server's preprocessor decodes them."""
    pixels = torch.tensor(np.stack([preprocess(image, SIZE) for image in images]))
    with torch.inference_mode():
        return KnownMaps(model)(model.encoder(pixels), torch.tensor(tag_ids)).numpy()


@pytest.mark.parametrize("options", [{}, {"threshold": 0}, {"top_k": [1, 5, 3]}], ids=str)
def test_maps_are_pytorchs_in_the_places_of_their_tags(client, pictures, model, options):
    answered = ask(client, pictures[:3], outputs=WITH_MAPS, **options)
    maps, ids = answered["maps"], answered["tag_ids"]
    assert maps.dtype == np.float32 and maps.shape == (*ids.shape, SIDE, SIDE)
    np.testing.assert_allclose(maps, expected_maps(model, pictures[:3], ids), atol=1e-4)
    np.testing.assert_allclose(maps.sum((2, 3)), ids >= 0, atol=1e-5)


def test_of_labels_of_the_request_too(client, pictures, model):
    labels = [31, 5, 2, 12, 17]
    names = [ALL[index] for index in labels]
    answered = ask_open(client, pictures[:2], names, outputs=WITH_MAPS, threshold=[0.0, 1.0])
    ids, maps = answered["tag_ids"], answered["maps"]
    assert maps.shape == (2, 5, SIDE, SIDE) and not maps[1].any()
    own = np.where(ids < 0, -1, np.take(labels, ids)).astype(np.int32)
    np.testing.assert_allclose(maps, expected_maps(model, pictures[:2], own), atol=1e-4)


def test_of_pixels_too(client, pictures):
    pixels = np.stack([preprocess(image, SIZE) for image in pictures[:2]])
    of_images, of_pixels = (ask(client, each, outputs=("maps",)) for each in (pictures[:2], pixels))
    np.testing.assert_allclose(of_pixels["maps"], of_images["maps"], atol=1e-5)


def test_a_request_without_them_does_not_run_their_models(server, client, pictures):
    def runs_maps(ask_once):
        return runs(server, client, ["ram_maps", "ram_open_maps"], ask_once)

    for outputs in (TAG_OUTPUTS, ("logits",), ("embedding",), ("logits", "embedding", "count")):
        assert not runs_maps(partial(ask, client, pictures[:2], outputs=outputs))
    assert not runs_maps(lambda: ask_open(client, pictures[:2], ALL))
    assert runs_maps(lambda: ask(client, pictures[:2], outputs=("tags", "maps")))


def test_pictures_without_tags_have_maps_of_zeros(client, pictures):
    one = ask(client, pictures[:2], outputs=WITH_MAPS, threshold=[1.0, 0.0])
    assert one["count"].tolist() == [[0], [40]]
    assert not one["maps"][0].any() and one["maps"][1].any((1, 2)).all()
    none = ask(client, pictures[:2], outputs=WITH_MAPS, threshold=1.0)
    assert none["tags"].shape == (2, 0)
    assert none["maps"].shape == (2, 1, SIDE, SIDE) and not none["maps"].any()
    none = ask_open(client, pictures[:1], ALL, outputs=WITH_MAPS, threshold=1.0)
    assert none["maps"].shape == (1, 1, SIDE, SIDE) and not none["maps"].any()


@pytest.mark.parametrize("others", [(), ("logits",), ("embedding",), ("logits", "embedding")])
def test_they_may_be_asked_for_beside_anything(client, pictures, others):
    maps = ask(client, pictures[:2], outputs=(*others, "maps"))["maps"]
    np.testing.assert_allclose(
        maps, ask(client, pictures[:2], outputs=WITH_MAPS)["maps"], atol=1e-5
    )


def test_pictures_that_exif_turns_have_turned_maps(client, photo):
    """A picture that lies on its side is answered as the upright one: the maps fit what is seen."""

    def encoded(picture, orientation):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", exif=exif)
        return buffer.getvalue()

    def maps(image):
        answered = ask(client, [image], outputs=WITH_MAPS, threshold=0)
        places = np.argsort(answered["tag_ids"][0])
        return answered["maps"][0, places]

    upright = maps(encoded(photo, 1))
    lying = photo.transpose(Image.Transpose.ROTATE_90)  # to be turned clockwise: orientation 6
    np.testing.assert_allclose(maps(encoded(lying, 6)), upright, atol=1e-5)
    ignored = maps(encoded(lying, 1))
    assert np.abs(ignored - upright).max() > 1e-3
    flipped = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_allclose(maps(encoded(flipped, 2)), upright, atol=1e-5)


def test_no_more_than_the_plans_of_the_maps_take():
    ids = np.arange(600, dtype=np.int32).reshape(2, 300)
    chosen = postprocessing.choose_for_maps(ids)
    assert chosen.shape == (2, 256) and (chosen == ids[:, :256]).all()
    assert postprocessing.choose_for_maps(ids[:, :0]).tolist() == [[-1], [-1]]
