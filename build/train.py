"""Train RAM as a configuration file says; started again, go on where it was stopped."""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from ram.checkpoint import CheckpointError
from ram.tag_lists import VocabularyError
from training.config import ConfigError, read_config
from training.manifest import ManifestError
from training.progress import Progress
from training.setup import make_model, prepare
from training.state import FILE, StateError, load_state, make_folder
from training.trainer import METRICS, Interrupted, Trainer


def main() -> int:
    """Read the arguments, train, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train, and how")
    parser.add_argument("--restart", action="store_true", help="forget what was trained so far")
    arguments = parser.parse_args()
    progress = Progress()
    try:
        path = train(arguments.config, arguments.restart, progress)
    except (ConfigError, VocabularyError, CheckpointError, StateError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place, reason = error.filename or arguments.config, error.strerror or error
        print(f"train: {place}: {reason}", file=sys.stderr)
        return 1
    except ManifestError as error:
        print(f"{error}\ntrain: {len(error.problems)} problems in the data", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print("train: interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + interrupted.signal
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on from its checkpoint", file=sys.stderr)
        return 130
    progress.say(f"{path}: trained")
    return 0


def train(config_path: Path, restart: bool, progress: Progress) -> Path:
    """Train, and return the model's file."""
    config = read_config(config_path)
    if restart:
        (config.output / FILE).unlink(missing_ok=True)
        shutil.rmtree(config.output / METRICS, ignore_errors=True)
    setup = prepare(config, progress.say)
    state = load_state(config.output, setup.fingerprint)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = Trainer(config, setup, make_model(config, setup, progress.say))
    make_folder(config.output)
    progress.say(
        f"model: {trainer.model.ram.variant}, on {trainer.device.type} in {trainer.precision}"
    )
    if state is not None:
        trainer.restore(state)
        progress.say(f"going on after step {trainer.step}")
    return trainer.train(progress)


if __name__ == "__main__":
    sys.exit(main())
