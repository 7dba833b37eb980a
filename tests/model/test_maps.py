"""Heat maps in PyTorch, by their definition: attention times the norms of the values."""

import numpy as np
import pytest
import torch
from ram_triton.model.checkpoint import load_model
from ram_triton.model.maps import HeatMaps, KnownMaps
from support.ram_plus import direct_labels, plus_weights

IDS = torch.tensor([[3, 17, 39, 0], [5, 3, -1, -1]], dtype=torch.int32)


@pytest.fixture(scope="module")
def plus_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("plus") / "tiny_plus.pth"
    torch.save({"model": plus_weights()}, path)
    return load_model(path)


def direct_map(model, image_embeds, label_embed):
    """One label's map of one image, head by head and patch by patch."""
    head, attention = model.head, model.head.layers[0].attention
    query = attention.query(torch.relu(head.label_projection(label_embed)))
    patches = image_embeds[1:]
    keys, values = attention.key(patches), attention.value(patches)
    width = len(query) // attention.heads
    total = torch.zeros(len(patches))
    for start in range(0, len(query), width):
        part = slice(start, start + width)
        powers = (keys[:, part] @ query[part] / width**0.5).exp()
        total += powers / powers.sum() * values[:, part].square().sum(-1).sqrt()
    side = model.variant.window_size
    return (total / total.sum()).reshape(side, side)


def test_maps_are_those_of_the_definition_and_padding_is_zero(model, golden):
    embeds = torch.from_numpy(golden["embeds"][:2])
    with torch.inference_mode():
        maps = KnownMaps(model)(embeds, IDS)
        for row, ids in enumerate(IDS.tolist()):
            for place, tag in enumerate(ids):
                if tag < 0:
                    assert not maps[row, place].any()
                else:
                    expected = direct_map(model, embeds[row], model.label_embed[tag])
                    np.testing.assert_allclose(maps[row, place], expected, atol=1e-6)
                    assert maps[row, place].sum() == pytest.approx(1, abs=1e-5)


def test_labels_of_the_request_have_the_maps_of_their_places(model, golden):
    embeds = torch.from_numpy(golden["embeds"][:2])
    chosen = [3, 17, 39, 0, 5]
    places = torch.tensor([[0, 1, 2, 3], [4, 0, -1, -1]], dtype=torch.int32)
    with torch.inference_mode():
        own = HeatMaps(model)(embeds, model.label_embed[chosen], places)
        torch.testing.assert_close(own, KnownMaps(model)(embeds, IDS))


def test_of_ram_plus_plus_each_image_weighs_the_descriptions_itself(plus_model, golden):
    embeds, weights = torch.from_numpy(golden["embeds"][:2]), plus_weights()
    with torch.inference_mode():
        maps = KnownMaps(plus_model)(embeds, IDS)
        labels = direct_labels(embeds[:, 0], weights["label_embed"], weights["reweight_scale"])
        for row, ids in enumerate(IDS.tolist()):
            for place, tag in enumerate(ids):
                if tag >= 0:
                    expected = direct_map(plus_model, embeds[row], labels[row, tag])
                    np.testing.assert_allclose(maps[row, place], expected, atol=1e-6)
