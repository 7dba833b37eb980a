"""Training's parts: batches, learning rates, files."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ram_triton.model.ram import RAM
from ram_triton.model.variant import Variant
from ram_triton.training.config import Augmentation, Optimisation, read_config
from ram_triton.training.data import Images, TrainingBatches
from ram_triton.training.evaluate import choose_thresholds
from ram_triton.training.manifest import Sample
from ram_triton.training.model import TrainingModel
from ram_triton.training.optimise import learning_rate, make_optimiser
from ram_triton.training.trainer import load_state
from ram_triton.vocabulary.tag_lists import THRESHOLDS, write_thresholds
from support.training_run import BATCH, IMAGES


def test_a_batch_depends_on_seed_epoch_and_number_alone(run_folder):
    samples = [Sample(i, run_folder / f"{i}.png", (i % 3,)) for i in range(IMAGES)]

    def batches(seed, epoch):
        settings = read_config(run_folder / "train.toml").augmentation
        return TrainingBatches(samples, Images(None, 32), 3, None, settings, BATCH, seed, epoch)

    again = batches(0, 1)
    again[0]
    assert torch.equal(batches(0, 1)[2].pixels, again[2].pixels)
    for other in (batches(0, 2)[2], batches(1, 1)[2], batches(0, 1)[3]):
        assert not torch.equal(batches(0, 1)[2].pixels, other.pixels)


def test_a_picture_of_several_images_has_the_tags_of_all(run_folder):
    samples = [Sample(i, run_folder / f"{i}.png", (i,)) for i in range(3)]
    settings = read_config(run_folder / "train.toml").augmentation
    batch = TrainingBatches(samples, Images(None, 32), 3, None, settings, 3, 0, 0)[0]
    assert batch.targets.sum(dim=1).max() == 2


def test_a_batch_without_a_whole_caption_has_none(run_folder):
    captions = [None, "a red square", "a blue square"]
    samples = [
        Sample(i, run_folder / f"{i}.png", (i,), caption) for i, caption in enumerate(captions)
    ]

    def captions_of(samples, objects):
        settings = Augmentation(objects=objects)
        size = len(samples)
        batches = TrainingBatches(samples, Images(None, 32), 3, None, settings, size, 0, 0)
        return batches[0].captions

    assert captions_of(samples, (1.0,)) != [None, None, None]
    # A dozen images a picture: the one without a caption is in each.
    assert captions_of(samples[:2], (*[0.0] * 11, 1.0)) is None


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine():
    settings = Optimisation(learning_rate=2.0, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(step, 110, settings) for step in range(111)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.1) and rates[110] == pytest.approx(0.2)


def test_the_image_encoder_has_its_share_of_the_learning_rate_and_only_matrices_decay():
    variant = Variant(32, 8, (1, 1, 1, 1), (1, 1, 2, 2), 12, 20, 3, 16, 1, 24)
    ram = RAM(variant)
    model = TrainingModel(ram)
    settings = Optimisation(learning_rate=1.0, encoder_share=0.25, weight_decay=0.5)
    groups = make_optimiser(model, settings, torch.device("cpu")).param_groups
    found = {id(p): (g["share"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found[id(ram.encoder.projection.weight)] == (0.25, 0.5)
    assert found[id(ram.encoder.projection.bias)] == (0.25, 0.0)
    assert found[id(ram.head.classifier.weight)] == (1.0, 0.5)
    assert found[id(ram.head.classifier.bias)] == (1.0, 0.0)
    assert id(ram.label_embed) not in found


def test_thresholds_are_chosen_as_they_are_written(run_folder):
    samples = [Sample(i, run_folder / f"{i}.png", (i % 3,)) for i in range(IMAGES)]

    class Tagger(torch.nn.Module):
        variant = SimpleNamespace(num_tags=3)

        def forward(self, pixels):
            return pixels.float().mean(dim=(1, 2)) / 77

    thresholds = choose_thresholds(Tagger(), samples, Images(None, 32))
    write_thresholds(thresholds.tolist(), run_folder)
    written = (run_folder / THRESHOLDS).read_text("utf-8").split()
    assert [np.float32(line) for line in written] == thresholds.tolist()


def test_without_a_state_training_starts_from_the_beginning(tmp_path):
    assert load_state(tmp_path, "any") is None
