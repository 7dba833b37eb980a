"""Measure a trained RAM on splits of its data, and choose its tags' thresholds."""

import argparse
import json
import sys
from pathlib import Path

import torch
from ram.checkpoint import CheckpointError, load_model
from ram.tag_lists import THRESHOLDS, VocabularyError
from rich.console import Console
from training.config import Config, ConfigError, read_config
from training.data import Images
from training.evaluation import (
    Report,
    choose_thresholds,
    evaluate,
    table,
    write_tags,
    write_thresholds,
)
from training.manifest import ManifestError, read_samples
from training.optimisation import choose_device
from training.setup import read_tags
from training.state import make_folder, write_atomically
from training.trainer import MODEL


def main() -> int:
    """Read the arguments, measure, and say what is wrong."""
    arguments = parse_arguments()
    try:
        reports = run(arguments)
    except (ConfigError, VocabularyError, CheckpointError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place, reason = error.filename or arguments.config, error.strerror or error
        print(f"evaluate: {place}: {reason}", file=sys.stderr)
        return 1
    except ManifestError as error:
        print(f"{error}\nevaluate: {len(error.problems)} problems in the data", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    Console().print(table(reports))
    return 0


def run(arguments: argparse.Namespace) -> list[Report]:
    """Evaluate each split that was asked for, and write what is to be written."""
    config = read_config(arguments.config)
    if arguments.threads < 0:
        raise ConfigError(f"--threads must be at least 0, not {arguments.threads}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint or config.output / MODEL)
    folder = arguments.thresholds or config.output
    make_folder(folder)
    if arguments.json:
        if arguments.json.is_dir():
            raise ConfigError(f"--json: {arguments.json} is a folder, give a file")
        make_folder(arguments.json.parent)
    tags, tags_zh = read_tags(config.data.vocabulary)
    if len(tags) != model.variant.num_tags:
        raise ConfigError(
            f"{config.data.vocabulary}: has {len(tags)} tags, the model {model.variant.num_tags}"
        )
    samples = read_samples(config.data, tags, tags_zh)
    device = choose_device(config.device)
    model = model.to(device)
    images = Images(config.data.images, model.variant.image_size)

    def of_split(name: str) -> list:
        chosen = [sample for sample in samples if sample.split == name]
        if not chosen:
            raise ConfigError(f"{arguments.config}: no image is of the split '{name}'")
        return chosen

    thresholds = choose_thresholds(
        model, of_split(config.data.validation_split), images, device
    )  # fmt: skip
    write_thresholds(thresholds, folder / THRESHOLDS)
    if arguments.thresholds is None:  # a folder of the user's has the lists that it should have
        write_tags(tags, tags_zh, folder)
    print(f"{folder / THRESHOLDS}: chosen on the split '{config.data.validation_split}'")
    names = arguments.split or splits_to_measure(config, samples)
    reports = [
        evaluate(name, model, of_split(name), images, thresholds, device) for name in names
    ]  # fmt: skip
    if arguments.json:
        text = json.dumps([report.as_dict() for report in reports], indent=2) + "\n"
        write_atomically(arguments.json, lambda unfinished: unfinished.write_text(text, "utf-8"))
    return reports


def splits_to_measure(config: Config, samples: list) -> list[str]:
    """All splits that were not trained on, in the data's order."""
    names = dict.fromkeys(sample.split for sample in samples if sample.split)
    return [name for name in names if name != config.data.training_split]


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="what `train.py` was given")
    add("--checkpoint", type=Path, metavar="FILE",
        help="what to measure, .pth or .safetensors (default: what training wrote)")  # fmt: skip
    add("--split", action="append", metavar="NAME",
        help="a split to measure; may be repeated (default: all but training)")  # fmt: skip
    add("--thresholds", type=Path, metavar="DIR",
        help=f"folder to write {THRESHOLDS} into, chosen on the validation split "
             "(default: the training's output)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    add("--threads", type=int, default=0, metavar="N", help="on a CPU (default: one a core)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
