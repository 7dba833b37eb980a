"""Training: what it learns from, that it can be stopped anywhere, and what it leaves."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from ram_triton.commands import evaluate, train
from ram_triton.model.checkpoint import load_model
from ram_triton.training.progress import open_metrics
from ram_triton.vocabulary.tag_lists import read_vocabulary
from safetensors.torch import load_file, save_file
from support import PATIENCE
from support.training_run import EPOCHS, TAGS, command, write_config, write_lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def run_outside(module, folder):
    """Run a command as users do: its workers fork, which this process's many threads forbid."""
    done = subprocess.run(command(module, folder), check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


# Training that is killed when a step after STEP is done, but is not in the checkpoint yet.
KILLED = """
import os, signal, sys
from ram_triton.cli import main
from ram_triton.training.trainer import Trainer

def save(self, save=Trainer.save):
    if self.step > STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self)

Trainer.save = save
sys.exit(main(sys.argv[1:]))
"""


def kill_after(folder, step):
    """Train until a step is in the checkpoint and the next one is done; returns the status."""
    interpreter, _, _, *arguments = command(train, folder)
    script = KILLED.replace("STEP", str(step))
    return subprocess.run([interpreter, "-c", script, *arguments], capture_output=True).returncode


def interrupt_after(folder, step):
    """Start training, and interrupt it once its checkpoint holds a step."""
    with subprocess.Popen(command(train, folder), stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            if (folder / "out" / "state.pth").exists() and saved_step(folder) >= step:
                child.send_signal(signal.SIGINT)
                break
            time.sleep(0.005)
        return child.wait(PATIENCE), child.stderr.read()


def saved_step(folder):
    return torch.load(folder / "out" / "state.pth", weights_only=True)["step"]


def weights(folder):
    return (folder / "out" / "ram.safetensors").read_bytes()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_killed_midway_resumes_to_the_same_weights(run_folder, workers, run):
    write_config(run_folder, 'features = "features.npy"', workers=workers, epochs=8)
    run = run_outside if workers else run
    run(train, run_folder)
    straight = weights(run_folder)
    (run_folder / "out").rename(run_folder / "straight")
    assert kill_after(run_folder, step=7) == -signal.SIGKILL
    assert saved_step(run_folder) == 7
    assert "resuming after step 7" in run(train, run_folder)
    assert weights(run_folder) == straight
    events = EventAccumulator(str(run_folder / "out" / "metrics")).Reload()
    assert [event.step for event in events.Scalars("loss/tagging")] == list(range(2, 41, 2))


def test_points_of_runs_that_began_in_the_same_second_are_not_mixed_up(tmp_path):
    """Their files' names would then be in the order of the processes' numbers."""
    while time.time() % 1 > 0.2:
        time.sleep(0.01)
    for first in (0, 2, 4):
        writer = open_metrics(tmp_path, first)
        for step in range(first + 1, first + 4):
            writer.add_scalar("loss", first, step)
        writer.close()
    # As if each process had a lower number than the one before it.
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        *start, _, count = file.name.split(".")
        file.rename(tmp_path / ".".join([*start, str(9 - number), count]))
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [
        *((1, 0), (2, 0), (3, 2), (4, 2), (5, 4), (6, 4), (7, 4))
    ]


def test_a_run_whose_folder_was_moved_resumes(run_folder, run):
    run(train, run_folder)
    moved = run_folder.with_name("moved")
    run_folder.rename(moved)
    assert "resuming after step 15" in run(train, moved)


def test_a_run_does_not_resume_from_a_start_that_has_changed(run_folder, run):
    run(train, run_folder)
    weights = load_file(run_folder / "out" / "ram.safetensors")
    save_file(weights, run_folder / "start.safetensors")
    settings = (run_folder / "train.toml").read_text("utf-8")
    settings = settings.replace("[model]", '[model]\nstart = "start.safetensors"')
    (run_folder / "train.toml").write_text(settings, "utf-8")
    run(train, run_folder, "--restart")
    weights["fc.bias"] += 1
    save_file(weights, run_folder / "start.safetensors")
    assert "another configuration" in run(train, run_folder, expect=1)


def test_ctrl_c_ends_after_a_whole_step_and_says_how_to_resume(run_folder):
    write_config(run_folder, epochs=200)
    status, told = interrupt_after(run_folder, step=3)
    assert status == 130
    assert "the same command resumes it" in told and "Traceback" not in told


def test_what_was_trained_loads_as_a_published_checkpoint(run_folder, run):
    run(train, run_folder)
    model = load_model(run_folder / "out" / "ram.safetensors")
    assert model.variant.image_size == 32
    np.testing.assert_array_equal(model.label_embed.detach(), np.load(run_folder / "labels.npy"))


def test_a_folder_with_splits_is_trained_on_and_evaluated(run_folder, run):
    lines = [json.loads(line) for line in (run_folder / "data.jsonl").read_text().splitlines()]
    for line in lines:
        place = run_folder / "images" / line["split"] / line["image"]
        place.parent.mkdir(parents=True, exist_ok=True)
        (run_folder / line["image"]).rename(place)
        place.with_suffix(".txt").write_text("\n".join(line["tags"]), "utf-8")
    settings = (run_folder / "train.toml").read_text("utf-8")
    settings = settings.replace('manifest = "data.jsonl"', 'folder = "images"')
    (run_folder / "train.toml").write_text(settings, "utf-8")
    told = run(train, run_folder)
    assert "data: 20 train, 4 validation" in told and "mAP" in told
    assert "validation" in run(evaluate, run_folder)


def test_a_loss_whose_input_is_absent_is_left_out_and_the_log_says_so(run_folder, run):
    told = run(train, run_folder)
    assert "loss tagging: weight 1" in told
    assert "loss distillation: left out, the data has no image features" in told
    assert "loss generation: left out, the data has no captions" in told


def test_an_encoder_pre_trained_by_a_classifier_is_trained_on_at_another_size(run_folder, run):
    write_config(run_folder, losses="{ classification = 1.0 }")
    told = run(train, run_folder)
    assert "loss tagging: left out, its weight is 0" in told
    assert "on the validation split" in told
    encoder = run_folder / "encoder.safetensors"
    (run_folder / "out" / "ram.safetensors").rename(encoder)
    settings = (run_folder / "train.toml").read_text("utf-8")
    settings = settings.replace("[model]", '[model]\nstart = "encoder.safetensors"')
    settings = settings.replace("classification", "tagging").replace("size = 32", "size = 64")
    (run_folder / "train.toml").write_text(settings, "utf-8")
    assert "fitting position tables from 32 to 64 px" in run(train, run_folder, "--restart")
    assert load_model(run_folder / "out" / "ram.safetensors").variant.image_size == 64


def test_captions_train_a_decoder_that_is_not_served(run_folder, run):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "|", *TAGS]
    (run_folder / "vocab.txt").write_text("\n".join(words) + "\n")
    lines = [json.loads(line) for line in (run_folder / "data.jsonl").read_text().splitlines()]
    write_lines(run_folder, [line | {"caption": f"a {line['tags'][0]}"} for line in lines])
    write_config(run_folder, epochs=8)
    with (run_folder / "train.toml").open("a") as settings:
        settings.write('[text]\nvocabulary = "."\nlayers = 2\nheads = 2\n')
    assert "loss generation: weight 1" in run(train, run_folder)
    events = EventAccumulator(str(run_folder / "out" / "metrics")).Reload()
    losses = [event.value for event in events.Scalars("loss/generation")]
    assert losses[-1] < 0.9 * losses[0]
    checkpoint = run_folder / "out" / "ram.safetensors"
    assert any(name.startswith("text_decoder.") for name in load_file(checkpoint))
    assert load_model(checkpoint).variant.num_tags == len(TAGS)


def test_metrics_are_where_tensorboard_reads_them(run_folder, run):
    write_config(run_folder, 'features = "features.npy"')
    run(train, run_folder)
    events = EventAccumulator(str(run_folder / "out" / "metrics")).Reload()
    assert {
        "loss/tagging",
        "loss/distillation",
        "learning_rate",
        "gradient_norm",
        "images_per_second",
        "validation/mAP",
    } <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/tagging")][:3] == [2, 4, 6]


def test_another_configuration_does_not_resume_the_old_run(run_folder, run):
    run(train, run_folder)
    write_config(run_folder, epochs=EPOCHS + 1)
    assert "another configuration" in run(train, run_folder, expect=1)
    run(train, run_folder, "--restart")


def test_what_training_and_evaluation_leave_is_what_make_model_takes(run_folder, run):
    run(train, run_folder)
    run(evaluate, run_folder)
    output = run_folder / "out"
    vocabulary = read_vocabulary(output, load_model(output / "ram.safetensors").variant.num_tags)
    chosen = (output / "ram_tag_list_threshold.txt").read_text("utf-8").split()
    assert (list(vocabulary.tags), list(vocabulary.tags_zh)) == (TAGS, ["红", "绿", "蓝"])
    assert vocabulary.thresholds == pytest.approx([float(one) for one in chosen])


def test_evaluation_writes_thresholds_and_figures(run_folder, run):
    run(train, run_folder)
    told = run(evaluate, run_folder, "--json", str(run_folder / "figures.json"))
    (figures,) = json.loads((run_folder / "figures.json").read_text("utf-8"))
    assert "validation" in told
    assert figures["images"] == 4 and 0 <= figures["mean_average_precision"] <= 1
    thresholds = (run_folder / "out" / "ram_tag_list_threshold.txt").read_text("utf-8").split()
    assert len(thresholds) == 3 and all(0 < float(one) < 1 for one in thresholds)
