"""The training loop: a run that is killed and resumed reaches the very same weights."""

import copy
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ram_triton.errors import StateError
from ram_triton.files import require_writable_folder, write_atomically
from ram_triton.signals import Interruption
from ram_triton.training.config import Config, read_config
from ram_triton.training.data import Batch, Images, TrainingBatches, load_batches
from ram_triton.training.evaluate import mean_average_precision, score
from ram_triton.training.losses import DISTILLATION, total_loss
from ram_triton.training.model import TrainingModel, published_state_dict
from ram_triton.training.optimise import (
    choose_device,
    choose_precision,
    learning_rate,
    make_optimiser,
)
from ram_triton.training.progress import Progress, open_metrics
from ram_triton.training.run_inputs import RunInputs, make_model, read_inputs

if TYPE_CHECKING:
    from ram_triton.training.text import TextTokens

# What a run writes into its output folder, besides the trained model.
STATE = "state.pth"
METRICS = "metrics"  # for TensorBoard


class Interrupted(Exception):
    """A signal, its number in `signal`, ended a run that can be resumed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Trainer:
    """Trains a model; see `train`.

    Args:
        config: the run's.
        inputs: what `read_inputs` made of it.
        model: where training starts from.
    """

    def __init__(self, config: Config, inputs: RunInputs, model: TrainingModel) -> None:
        self.config, self.inputs = config, inputs
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.optimisation.precision, self.device)
        self.model = model.to(self.device).train()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimiser = make_optimiser(model, config.optimisation, self.device)
        self.images = Images(config.data.images, model.ram.variant.image_size)
        self.steps_per_epoch = len(self._batches(0))
        self.total_steps = self.steps_per_epoch * config.optimisation.epochs
        self.step = 0
        self.saved_at = time.monotonic()

    def save(self) -> None:
        """Write all that the run needs to be resumed; a kill meanwhile leaves the state before."""
        state = {
            "fingerprint": self.inputs.fingerprint,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_atomically(self.config.output / STATE, lambda path: torch.save(state, path))
        self.saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from what `save` wrote."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def train(self, progress: Progress) -> Path:
        """Train to the end of the last epoch, and write the averaged model.

        Returns:
            The model's file, a checkpoint in the published format.

        Raises:
            Interrupted: by a signal; the step under way was finished, and the state written.
        """
        writer = open_metrics(self.config.output / METRICS, self.step)
        progress.begin(self.total_steps, self.step, self.config.optimisation.batch_size)
        try:
            # Half a step must never reach a state: what resumes from it would end elsewhere.
            with Interruption() as interruption:
                while self.step < self.total_steps:
                    self._train_epoch(progress, writer, interruption)
        finally:
            progress.end()
            writer.close()
        path = self.config.trained_model
        weights = published_state_dict(self.average)
        write_atomically(path, lambda unfinished: save_file(weights, unfinished))
        return path

    def _batches(self, epoch: int) -> TrainingBatches:
        inputs, config = self.inputs, self.config
        return TrainingBatches(
            inputs.training,
            self.images,
            len(inputs.tags),
            inputs.features if DISTILLATION in inputs.losses else None,
            config.augmentation,
            config.optimisation.batch_size,
            config.seed,
            epoch,
        )

    def _train_epoch(
        self, progress: Progress, writer: SummaryWriter, interruption: Interruption
    ) -> None:
        """Train to the end of the epoch."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        for batch in load_batches(self._batches(epoch), first, self.config.data.workers):
            losses, norm = self.take_step(batch)
            progress.update(losses)
            if self.step % self.config.reports.log_steps == 0:
                self._add_point(losses, norm, progress, writer)
            stop = interruption.signal
            if stop or time.monotonic() - self.saved_at > self.config.reports.checkpoint_seconds:
                writer.flush()
                self.save()
            if stop:
                raise Interrupted(stop)
        every = self.config.reports.validation_epochs
        last = self.step == self.total_steps
        if self.inputs.validation and every and ((epoch + 1) % every == 0 or last):
            samples, num_tags = self.inputs.validation, len(self.inputs.tags)
            scored = score(self.average.tag, num_tags, samples, self.images, self.device)
            quality = mean_average_precision(*scored)
            writer.add_scalar("validation/mAP", quality, self.step)
            progress.log(f"epoch {epoch + 1}: mAP {quality:.4f} on the validation split")
            progress.resume()
        writer.flush()
        self.save()

    def take_step(self, batch: Batch) -> tuple[dict[str, float], float]:
        """Learn from a batch; returns the losses by name, unweighted, and the gradient's norm."""
        # Chance inside the model (dropped paths) depends on the step alone, as all other does.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rate = learning_rate(self.step, self.total_steps, self.config.optimisation)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision is not torch.float32
        ):
            outputs = self.model(
                batch.pixels.to(self.device, non_blocking=True),
                batch.targets.to(self.device, non_blocking=True),
                None if batch.features is None else batch.features.to(self.device),
                self._text(batch),
            )
        torch.autograd.backward(total_loss(outputs.losses, self.inputs.losses))
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.optimisation.gradient_norm
        )
        if math.isfinite(norm):  # a step from an overflow would spoil all weights
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        return {name: loss.item() for name, loss in outputs.losses.items()}, float(norm)

    def _text(self, batch: Batch) -> Optional["TextTokens"]:
        """Return tokens of the pictures' tags and captions, if captions train the model."""
        if self.inputs.tokenizer is None or batch.captions is None:
            return None
        names = self.inputs.tags
        tags = [[names[i] for i in row.nonzero().flatten()] for row in batch.targets]
        return self.inputs.tokenizer(tags, batch.captions).to(self.device)

    def _average(self) -> None:
        """Move the average a little towards the model; at first by more, to forget the start."""
        keep = min(self.config.optimisation.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()),
                [one.detach() for one in self.model.parameters()],
                1 - keep if self.config.optimisation.ema else 1.0,
            )

    def _add_point(
        self, losses: dict[str, float], norm: float, progress: Progress, writer: SummaryWriter
    ) -> None:
        rate = learning_rate(self.step - 1, self.total_steps, self.config.optimisation)
        points = {
            **{f"loss/{name}": loss for name, loss in losses.items()},
            "gradient_norm": norm,
            "learning_rate": rate,
            "images_per_second": progress.images_per_second,
        }
        for name, value in points.items():
            writer.add_scalar(name, value, self.step)


def train(config_path: Path, restart: bool, progress: Progress) -> Path:
    """Train, and return the model's file.

    Args:
        config_path: the run's configuration.
        restart: forget what was trained so far.
        progress: shows the training.

    Raises:
        ConfigError, VocabularyError, ManifestError, CheckpointError, StateError: an input cannot
            be used.
        Interrupted: by a signal; the same call resumes it.
    """
    config = read_config(config_path)
    if restart:
        (config.output / STATE).unlink(missing_ok=True)
        shutil.rmtree(config.output / METRICS, ignore_errors=True)
    inputs = read_inputs(config, progress.log)
    state = load_state(config.output, inputs.fingerprint)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    trainer = Trainer(config, inputs, make_model(config, inputs, progress.log))
    require_writable_folder(config.output)
    progress.log(
        f"model: {trainer.model.ram.variant}, on {trainer.device.type} in {trainer.precision}"
    )
    if state is not None:
        trainer.restore(state)
        progress.log(f"resuming after step {trainer.step}")
    return trainer.train(progress)


def load_state(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read a run's state, if there is one.

    Args:
        folder: the run's output.
        fingerprint: see `RunInputs`.

    Raises:
        StateError: the state is another run's, or the file is something else.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["fingerprint"]
    except Exception as error:  # torch's unpickler raises nearly anything on other files
        raise StateError(
            f"{path}: is not the state of a training run ({type(error).__name__})"
        ) from error
    if found != fingerprint:
        raise StateError(
            f"{path}: belongs to a run with another configuration, data or vocabulary; "
            "specify another output folder, or discard it with RESTART=1 (--restart)"
        )
    return state
