"""Training: what it learns from, that it can be stopped anywhere, and what it says of mistakes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
import train
from PIL import Image
from ram.checkpoint import load_model
from ram.model import RAM
from ram.variant import Variant
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training.config import ConfigError, Optimisation, read_config
from training.data import Images, TrainingBatches
from training.manifest import Sample
from training.model import TrainingModel
from training.optimisation import learning_rate, make_optimiser
from training.state import load_state, write_atomically

BUILD = Path(__file__).resolve().parents[1] / "build"
TAGS = ["red", "green", "blue"]
EPOCHS, IMAGES, BATCH = 3, 24, 4

CONFIG = """
output = "out"
device = "cpu"
threads = 1
losses = {losses}

[data]
vocabulary = "."
label_embeddings = "labels.npy"
manifest = "data.jsonl"
workers = {workers}
{data}

[model]
image_size = 32
embed_dim = 8
depths = [1, 1, 1, 1]
num_heads = [1, 1, 2, 2]
image_width = 12
hidden_size = 16
num_layers = 2
intermediate_size = 24

[augmentation]
objects = [0.5, 0.5]

[optimisation]
epochs = {epochs}
batch_size = 4
learning_rate = 1e-3
warmup_steps = 4
precision = "float32"

[reports]
log_steps = 2
checkpoint_seconds = 0
"""
ALL = "{ tagging = 1.0, distillation = 1.0, generation = 1.0 }"


@pytest.fixture
def run_folder(tmp_path):
    """A training set of coloured squares, with a file of everything that a run needs."""
    chance = np.random.default_rng(0)
    lines = []
    for number in range(IMAGES):
        colour = number % 3
        pixels = chance.integers(0, 60, (32, 32, 3), np.uint8)
        pixels[..., colour] += 150
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "validation" if number >= IMAGES - 4 else "train"
        lines.append({"image": f"{number}.png", "tags": [TAGS[colour]], "split": split})
    write_lines(tmp_path, lines)
    (tmp_path / "ram_tag_list.txt").write_text("\n".join(TAGS) + "\n", "utf-8")
    (tmp_path / "ram_tag_list_chinese.txt").write_text("红\n绿\n蓝\n", "utf-8")
    np.save(tmp_path / "labels.npy", chance.standard_normal((3, 20), np.float32))
    np.save(tmp_path / "features.npy", chance.standard_normal((IMAGES, 12), np.float32))
    write_config(tmp_path)
    return tmp_path


def write_lines(folder, lines):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")


def write_config(folder, data="", losses=ALL, workers=0, epochs=EPOCHS):
    settings = {"data": data, "losses": losses, "workers": workers, "epochs": epochs}
    (folder / "train.toml").write_text(CONFIG.format(**settings), "utf-8")


def command(script, folder, *arguments):
    return [sys.executable, str(BUILD / script), str(folder / "train.toml"), *arguments]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command's `main` here, as often as wished: its imports take longer than its work."""
    threads = torch.get_num_threads()

    def run(module, folder, *arguments, expect=0):
        monkeypatch.chdir("/")
        monkeypatch.setattr(sys, "argv", [module.__name__, str(folder / "train.toml"), *arguments])
        status = module.main()
        told = capsys.readouterr()
        assert status == expect, told
        return told.out + told.err

    yield run
    torch.set_num_threads(threads)


def run_outside(module, folder):
    """Run a command as users do: its workers fork, which this process's many threads forbid."""
    done = subprocess.run(
        command(f"{module.__name__}.py", folder), check=True, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def stop_after(folder, step, number):
    """Start training, and send it a signal once its checkpoint holds a step."""
    with subprocess.Popen(command("train.py", folder), stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            if (folder / "out" / "state.pth").exists() and saved_step(folder) >= step:
                child.send_signal(number)
                break
            time.sleep(0.005)
        return child.wait(60), child.stderr.read()


def saved_step(folder):
    return torch.load(folder / "out" / "state.pth", weights_only=True)["step"]


def weights(folder):
    return (folder / "out" / "ram.safetensors").read_bytes()


@pytest.mark.parametrize("workers", [0, 1])
def test_training_killed_midway_resumes_to_the_same_weights(run_folder, workers, run):
    write_config(run_folder, 'features = "features.npy"', workers=workers, epochs=8)
    run = run_outside if workers else run
    run(train, run_folder)
    straight = weights(run_folder)
    (run_folder / "out").rename(run_folder / "straight")
    status, _ = stop_after(run_folder, step=7, number=signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert 7 <= saved_step(run_folder) < 40
    assert "going on after step" in run(train, run_folder)
    assert weights(run_folder) == straight


def test_ctrl_c_ends_after_a_whole_step_and_says_how_to_go_on(run_folder):
    write_config(run_folder, epochs=200)
    status, told = stop_after(run_folder, step=3, number=signal.SIGINT)
    assert status == 130
    assert "goes on from here" in told and "Traceback" not in told


def test_what_was_trained_loads_as_a_published_checkpoint(run_folder, run):
    run(train, run_folder)
    model = load_model(run_folder / "out" / "ram.safetensors")
    assert model.variant.image_size == 32
    np.testing.assert_array_equal(model.label_embed.detach(), np.load(run_folder / "labels.npy"))


def test_a_loss_whose_input_is_absent_is_left_out_and_the_log_says_so(run_folder, run):
    told = run(train, run_folder)
    assert "loss tagging: weight 1" in told
    assert "loss distillation: left out, the data has no image features" in told
    assert "loss generation: left out, the data has no captions" in told


def test_an_encoder_is_pre_trained_by_a_classifier_and_then_trained_on(run_folder, run):
    write_config(run_folder, losses="{ classification = 1.0 }")
    told = run(train, run_folder)
    assert "loss tagging: left out, its weight is 0" in told
    assert "on the validation split" in told
    encoder = run_folder / "encoder.safetensors"
    (run_folder / "out" / "ram.safetensors").rename(encoder)
    settings = (run_folder / "train.toml").read_text("utf-8")
    settings = settings.replace("[model]", '[model]\nstart = "encoder.safetensors"')
    settings = settings.replace("classification", "tagging")
    (run_folder / "train.toml").write_text(settings, "utf-8")
    run(train, run_folder, "--restart")


def test_metrics_are_where_tensorboard_reads_them(run_folder, run):
    write_config(run_folder, 'features = "features.npy"')
    run(train, run_folder)
    events = EventAccumulator(str(run_folder / "out" / "metrics")).Reload()
    assert {"loss/tagging", "loss/distillation", "learning_rate", "gradient_norm",
            "images_per_second", "validation/mAP"} <= set(events.Tags()["scalars"])  # fmt: skip
    assert [event.step for event in events.Scalars("loss/tagging")][:3] == [2, 4, 6]


def test_all_mistakes_in_the_data_are_told_before_training_begins(run_folder, run):
    write_lines(run_folder, [
        {"image": "0.png", "tags": ["violet"]},
        {"image": "none.png", "tags": ["red"]},
    ])  # fmt: skip
    told = run(train, run_folder, expect=1)
    assert "line 1: the tag 'violet'" in told and "line 2: the image" in told
    assert "2 problems" in told
    assert not (run_folder / "out").exists()


def test_another_configuration_does_not_go_on_with_the_old_run(run_folder, run):
    run(train, run_folder)
    write_config(run_folder, epochs=EPOCHS + 1)
    assert "another configuration" in run(train, run_folder, expect=1)
    run(train, run_folder, "--restart")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("epochs =", "epoch =", "unknown setting 'epoch'"),
        ("epochs = 3", 'epochs = "3"', "'3' is not of type int"),
        ('device = "cpu"', 'device = "tpu"', "device must be"),
        ('output = "out"', "", "'output' is missing"),
        ("threads = 1", "threads =", "is no TOML"),
        ('manifest = "data.jsonl"', "", "a manifest or a folder"),
        ("tagging = 1.0", "tagging = 0.0", "must have tagging or classification"),
    ],
)
def test_a_wrong_setting_is_told_by_name(run_folder, before, after, told):
    path = run_folder / "train.toml"
    path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")
    with pytest.raises(ConfigError, match=told):
        read_config(path)


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


def test_a_file_that_could_not_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        write_atomically(path, fail)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_without_a_state_training_begins_anew(tmp_path):
    assert load_state(tmp_path, "any") is None


def test_evaluation_writes_thresholds_and_figures(run_folder, run):
    run(train, run_folder)
    told = run(evaluate, run_folder, "--json", str(run_folder / "figures.json"))
    (figures,) = json.loads((run_folder / "figures.json").read_text("utf-8"))
    assert "validation" in told
    assert figures["images"] == 4 and 0 <= figures["mean_average_precision"] <= 1
    thresholds = (run_folder / "out" / "ram_tag_list_threshold.txt").read_text("utf-8").split()
    assert len(thresholds) == 3 and all(0 < float(one) < 1 for one in thresholds)
